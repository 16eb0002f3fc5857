/* The page's script, in readable form. The tag renders snippet.min.js, made from this by `make script`.
 *
 * It loads analytics.js and makes one page call. If that call cannot be delivered, the same page view, with the same
 * messageId, goes to the site's own pixel; and while analytics.js does not come, other calls go to the site, too.
 * ES2015; no dependency; fails silent.
 *
 * config (from page/snippet.py):
 *   k  write key                  u  URL of analytics.js
 *   h  CDN, where analytics.js cannot tell it from its own URL
 *   o  options of analytics.load; without, the page's own code calls it (through a consent wrapper, say)
 *   a  arguments of analytics.page: category, name, properties
 *   b  where our URLs are: p/ is the pixel's, q for other calls
 *   t  page token; c names its cookie, and what is kept in localStorage; with n there is no cookie
 *   w  milliseconds to wait for analytics.js
 *
 * parts: what not every page needs, each a function of (next, config, core) in a file of its own beside this one.
 * They run one after the other, before anything is loaded or sent: each calls `next` when the following one may.
 *
 * again: what to do where the document has this script already.
 */
PART((config, parts, again) => {
  const analytics = (window.analytics = window.analytics || []);
  if (analytics.initialize || analytics.invoked) return again && again(config);
  analytics.invoked = 1;

  const views = [];
  let broken;

  const core = {
    pageContext: () => ({
      __t: "bpc",
      c: (document.querySelector("link[rel=canonical]") || 0).href,
      p: location.pathname,
      u: location.href,
      s: location.search,
      t: document.title,
      r: document.referrer,
    }),

    // A page view: `call` has the arguments of analytics.page; `more`, what the pixel must be told of a page that the
    // token does not describe.
    reportView(call, token, context, more) {
      const view = { i: newId(), d: Date.now(), t: token, p: context, m: more };
      views.push(view);
      window.analytics.page(...call, { messageId: view.i }, (event) => {
        const failure = event.failedDelivery();
        if (
          failure
            ? !/middleware/.test(failure.reason.type) // else "middleware_cancellation"
            : event.logs().some((log) => /sending/.test(log.message))
        )
          core.fallBack();
        else core.settle(view, failure);
      });
      setTimeout(core.fallBack, config.w);
      return view;
    },

    settle(view) {
      view.x = 1;
    },

    sendPixel(view, leaving) {
      const path = config.b + "p/" + view.i;
      // None of these has a line break in it. What is too long loses its end: gunicorn takes a line of 4,094 bytes.
      const lines = [
        Date.now() - view.d,
        Intl.DateTimeFormat().resolvedOptions().timeZone,
        view.m,
        view.p.c,
        view.p.t,
        view.p.s,
        view.p.r,
      ].join("\n");
      const data = btoa(unescape(encodeURIComponent(lines)))
        .slice(0, 3900 - view.t.length)
        .replace(/\//g, "_");
      const url = path + "/" + data + "/" + view.t;
      // The cookie proves that a page of ours asks, where the page hides the Referer. It may be refused, and Chromium
      // may send the request before it has the cookie: so the token is in the URL, too.
      if (!config.n)
        document.cookie =
          `${config.c}=${view.t};path=${path};max-age=60;samesite=strict` +
          (location.protocol[5] ? ";secure" : ""); // "https:"
      // A browser may cancel an image that a page starts just before it is left; a beacon it sends, where it has any.
      view.x = leaving && navigator.sendBeacon && navigator.sendBeacon(url);
      if (!view.x) {
        const image = new Image();
        view.s = 1;
        image.onload = () => (view.x = 1);
        image.onerror = () => keep(view);
        image.referrerPolicy = "same-origin";
        image.src = url;
      }
    },

    // analytics.js does not deliver; or the page is being left, and nobody knows.
    fallBack(leaving) {
      // It was told to send nothing: then neither do we.
      if ((window.analytics.settings || 0).writeKey === "") return;
      broken = 1;
      attempt(() => {
        views.map((view) => view.x || (view.s && !leaving) || core.sendPixel(view, leaving));
        // Our own page calls stay in the queue: with their messageId they may arrive by both ways. The others
        // go together: in requests of their own the slowest would come to be the last.
        post(
          analytics
            .splice(0)
            .filter((call) => (call.d && !(call[4] || 0).messageId) || !analytics.push(call))
            .map((call) => ({ i: newId(), d: call.d, a: call }))
        );
      });
    },
  };

  // Storage may be forbidden, and this or that be missing: then the page shall not notice.
  const attempt = (action) => {
    try {
      action();
    } catch (_) {}
  };

  // Minted here: an id that was rendered would repeat with every cached copy of the page. The time comes first for the
  // sake of the buffer's index, see new_message_id in message.py; of what follows 96 bits are random.
  const newId = () => Date.now() + crypto.getRandomValues(new Uint32Array(3)).join("");

  function post(calls) {
    if (calls[0])
      fetch(config.b + "q", {
        method: "POST",
        keepalive: true,
        body: JSON.stringify({ k: config.k, c: calls.map((call) => [call.i, Date.now() - call.d, call.a]) }),
      }).then(
        (response) => response.status > 499 && calls.map(keep),
        () => calls.map(keep)
      );
  }

  // What the site could not take, for the next page to send again.
  function keep(item) {
    // Segment takes what is long past, but nobody wants what fails for ever.
    if (Date.now() - item.d < 864e5)
      attempt(() => {
        localStorage[config.c] = JSON.stringify([...JSON.parse(localStorage[config.c] || "[]"), item].slice(-20));
      });
  }

  // Until analytics.js is ready, calls wait in this array, each with the page as it was when the call was made.
  (
    "alias group identify page screen track trackClick trackForm trackLink trackSubmit addDestinationMiddleware " +
    "addIntegrationMiddleware addSourceMiddleware debug off on once pageview ready register reset setAnonymousId"
  )
    .split(" ")
    .map((method, index) => {
      analytics[method] = (...call) => {
        if (window.analytics.initialized) return window.analytics[method](...call);
        if (index < 6) {
          call.push(core.pageContext());
          call.d = Date.now();
        }
        call.unshift(method);
        analytics.push(call);
        if (broken) core.fallBack();
        return analytics;
      };
    });

  analytics._writeKey = config.k;
  analytics._cdn = config.h;
  analytics.load = (key, options) => {
    const next = () => {
      const part = parts.shift();
      if (part) return part(next, config, core);
      const script = document.createElement("script");
      analytics._loadOptions = options;
      script.src = config.u;
      // Neither an empty answer nor a surrogate defines what Segment's own build does.
      script.onload = () => "analyticsWriteKey" in window || core.fallBack();
      script.onerror = () => core.fallBack();
      document.head.appendChild(script);
      core.reportView(config.a, config.t, core.pageContext());
      ["pagehide", "visibilitychange"].map((type) =>
        addEventListener(
          type,
          () => (type == "pagehide" || document.hidden) && core.fallBack(1),
          true
        )
      );
      attempt(() => {
        const waiting = localStorage[config.c];
        delete localStorage[config.c];
        post(JSON.parse(waiting).filter((item) => item.a || (views.push(item), core.sendPixel(item))));
      });
    };
    if (document.prerendering) document.addEventListener("prerenderingchange", next);
    else next();
  };
  if (config.o) analytics.load(config.k, config.o);
});
