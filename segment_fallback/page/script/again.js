/* The snippet ran again in a document that has it: a framework put another page into it. See navigation.js. */
PART((config) => {
  segmentFallback.pages[location.pathname] = config;
});
