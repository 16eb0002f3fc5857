/* Do Not Track: neither load nor send anything. */
PART((next) => navigator.doNotTrack == 1 || next());
