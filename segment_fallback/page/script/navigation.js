/* Views without a page load. config.auto: find them by what htmx, Turbo and the history say; else the page's own code
 * calls segmentFallback.page({name, category, properties}), all of them optional.
 */
PART((next, config, core) => {
  const hook = (window.segmentFallback = window.segmentFallback || {});
  const here = () => location.pathname + location.search;
  let seen = here();
  let referrer = location.href;
  let canonical = core.pageContext().c;
  let timer;

  // More would leave no room in the pixel's URL for the rest.
  function short(properties) {
    return JSON.stringify(properties || {}).length < 1000 ? properties : {};
  }

  // What the server has rendered for a path, if its page has come into this document.
  hook.pages = { [location.pathname]: config };

  function view(details) {
    clearTimeout(timer);
    timer = 0;
    if (!details && here() == seen) return;
    const context = core.pageContext();
    const rendered = !details && hook.pages[location.pathname];
    const { category, name, properties } = details || {};
    const call = rendered ? rendered.a : [category || null, name || null, properties];
    const own = { referrer };
    // A canonical link that stayed when the page changed is not this page's.
    if (context.c == canonical) {
      context.c = "";
      own.path = location.pathname;
      own.url = location.origin + here();
    } else canonical = context.c;
    context.r = referrer;
    seen = here();
    referrer = location.href;
    core.reportView(
      [call[0], call[1], Object.assign(own, call[2])],
      (rendered || config).t,
      context,
      rendered ? "" : JSON.stringify([location.pathname, category, name, short(properties)])
    );
  }

  hook.page = (details) => view(details || {});

  if (config.auto) {
    // These come when the new page is in place, with its title; a router of the page's own is given a moment for it.
    "turbo:load htmx:afterSettle htmx:historyRestore htmx:finally:swap"
      .split(" ")
      .map((type) => document.addEventListener(type, () => view()));
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(view, window.Turbo || window.htmx ? 5000 : 250);
    };
    const { pushState } = history;
    history.pushState = function () {
      pushState.apply(history, arguments);
      soon();
    };
    addEventListener("popstate", soon);
    addEventListener("pagehide", () => timer && view(), true);
  }
  next();
});
