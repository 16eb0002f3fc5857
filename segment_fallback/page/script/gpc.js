/* Global Privacy Control (https://www.w3.org/TR/gpc/): neither load nor send anything. */
PART((next) => navigator.globalPrivacyControl || next());
