/* Which variations the visitor gets, and the traits that his page may know, on pages that a cache may have kept.
 *
 * config.ask is asked at most once a minute, or where Segment has not heard yet of a variation that this page shows:
 * config.seen, by experiment. It answers with what was told of these, and sets the cookies by which the next pages go.
 * localStorage keeps when it was asked, and what was told. It waits for analytics.js, whose anonymousId is to be used.
 */
PART((next, config) => {
  let asked, told;
  try {
    [asked, told] = JSON.parse(localStorage[config.ask]);
  } catch (_) {
    told = {};
  }

  function ask() {
    if (!config.ask) return;
    const url = config.ask;
    config.ask = "";
    fetch(url, { method: "POST", body: JSON.stringify(config.seen) })
      .then((response) => response.json())
      .then((answer) => {
        for (const experiment in answer.told) told[experiment] = answer.told[experiment];
        try {
          localStorage[url] = JSON.stringify([Date.now(), told]);
        } catch (_) {}
        if (answer.traits)
          window.analytics.ready(() => {
            const user = window.analytics.user();
            user.traits(Object.assign({}, user.traits(), answer.traits));
          });
        dispatchEvent(new CustomEvent("segmentvariations", { detail: answer }));
      })
      .catch(() => {});
  }

  next();
  if (Object.keys(config.seen).some((experiment) => told[experiment] != config.seen[experiment]) || !(Date.now() - asked < 6e4)) {
    analytics.ready(ask);
    setTimeout(ask, config.w);
  }
});
