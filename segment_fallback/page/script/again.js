/* The snippet ran again in a document that has it: a framework put another page into it. See navigation.js, which may
 * not have had its turn.
 */
PART((config) => {
  const hook = (window.segmentFallback = window.segmentFallback || {});
  const pages = (hook.pages = hook.pages || {});
  pages[location.pathname] = pages[location.pathname + location.search] = config;
});
