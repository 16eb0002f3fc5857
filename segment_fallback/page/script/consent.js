/* Consent: nothing is loaded or sent before the visitor agrees, nor after they take it back.
 *
 * config.consent: n, name of the cookie that says so; v, its value, or with x a text that it contains. Without n the
 * page's own code says so. Both may use segmentFallback.consent(answer), at any time and again: true or false, or a
 * promise of it.
 */
PART((next, config, core) => {
  const { n, v, x } = config.consent;
  const { fallBack } = core;
  let granted, started;

  function decide(answer) {
    granted = answer;
    if (!granted || started) return;
    started = 1;
    // An event that a middleware does not hand on is dropped, by analytics.js and by us.
    analytics.addSourceMiddleware((event) => granted && event.next(event.payload));
    next();
  }

  core.fallBack = (leaving) => granted && fallBack(leaving);
  (window.segmentFallback = window.segmentFallback || {}).consent = (answer) => Promise.resolve(answer).then(decide);

  let before;
  function look() {
    const found = ("; " + document.cookie).split(`; ${n}=`)[1];
    const value = found && unescape(found.split(";")[0]);
    const answer = !!value && (x ? value.indexOf(v) >= 0 : !v || value == v);
    if (answer != before) decide((before = answer));
  }
  if (n) {
    look();
    setInterval(look, 500);
  }
});
