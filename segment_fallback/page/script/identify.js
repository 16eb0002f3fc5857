/* Who is signed in, on pages that are the same for everybody. The cookie config.hint is set at login and cleared at
 * logout; its value, which says nothing, differs by login. config.me answers with the userId, and is asked once a login.
 *
 * localStorage keeps two of these values: the login that analytics.js knows of, and the one that was last asked about.
 * They differ while analytics.js is blocked.
 */
PART((next, config) => {
  let login, known, asked, later;
  try {
    login = ("; " + document.cookie).split(`; ${config.hint}=`)[1];
    login = login && login.split(";")[0];
    [known, asked] = (localStorage[config.hint] || "").split(" ");
  } catch (_) {}

  function keep() {
    try {
      localStorage[config.hint] = known + " " + asked;
    } catch (_) {}
  }

  function ask() {
    fetch(config.me)
      .then((response) => response.json())
      .then(({ userId }) => {
        if (!userId) return;
        const tell = () => {
          window.analytics.identify(userId);
          window.analytics.ready(() => {
            known = login;
            keep();
          });
        };
        asked = login;
        keep();
        // analytics.js is ready a moment before it makes the calls that waited for it, of which one is the reset.
        if (known && window.analytics.initialized) later = tell;
        else tell();
      })
      .catch(() => {});
  }

  // Somebody has signed out, or somebody else in: what follows is not the former visitor's.
  if (known && known != login) {
    analytics.reset();
    analytics.ready(() => {
      known = "";
      keep();
      if (later) later();
    });
  }
  next();
  if (login && login != known) login == asked ? analytics.ready(ask) : ask();
});
