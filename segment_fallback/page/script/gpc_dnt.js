/* Both choices at once, as is the default: see gpc.js and dnt.js. */
PART((next) => navigator.globalPrivacyControl || navigator.doNotTrack == 1 || next());
