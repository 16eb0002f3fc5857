/* Consent: nothing is loaded or sent before the visitor agrees, nor after they take it back.
 *
 * config.consent: n, name of the cookie that says so; v, its value, or with x a text that it contains. Without n the
 * page's own code says so. Both may use segmentFallback.consent(answer), at any time and again: true, or a promise of
 * it; anything else is no, and so is a promise that fails. The last answer counts.
 *
 * This is a function that makes the part: page code may call before its turn comes (a page that is prerendered, or
 * calls analytics.load itself), and where it never comes (gpc.js).
 */
PART(() => {
  const hook = (window.segmentFallback = window.segmentFallback || {});
  let granted, asked, start;

  function decide(answer) {
    granted = answer === true;
    if (granted && start) start((start = 0));
  }

  // The snippet may come again in a document that has it.
  hook.consent =
    hook.consent ||
    ((answer) => {
      const own = (asked = {});
      Promise.resolve(answer)
        .catch(() => {})
        .then((answer) => own == asked && decide(answer));
    });

  return (next, config, core) => {
    const { n, v, x } = config.consent;
    let started, before;

    function may() {
      let value;
      try {
        value = n && unescape(("; " + document.cookie).split(`; ${n}=`)[1].split(";")[0]);
      } catch (_) {}
      const answer = !!value && (x ? value.indexOf(v) >= 0 : !v || value == v);
      if (n && answer != before) decide((before = answer));
      return granted;
    }
    const gate = (action) => (...all) => may() && action(...all);
    core.reportView = gate(core.reportView);
    core.sendPixel = gate(core.sendPixel);
    core.fallBack = gate(core.fallBack);

    // Calls made meanwhile: those before the first answer wait for it, those after a withdrawal are nobody's.
    const { push } = analytics;
    analytics.push = (call) => (started && call.d && !may()) || push.call(analytics, call);

    start = () => {
      started = 1;
      // An event that a middleware does not hand on is dropped, by analytics.js and by us.
      analytics.addSourceMiddleware((event) => may() && event.next(event.payload));
      next();
    };
    if (n) setInterval(may, 500);
    if (may()) decide(granted);
  };
});
