# Varnish 7 in front of a Django site with segment_fallback. Used as it is but for these:
#   1. the address of Django, here;
#   2. the terminators of TLS, in the acl;
#   3. "/s/", where the site has mounted segment_fallback.urls;
#   4. the paths that show a visitor something of his own (vcl_recv, "personal").
#   5. with VARIATIONS "edge": below "vcl 4.1;" the line include "/etc/varnish/variations.vcl"; for the file that
#      `manage.py segment_variations --varnish` prints (docs/how-to/personalisation.md).
# docs/how-to/edge-caching.md says why; tests/edge runs this file.
vcl 4.1;

import proxy;

backend default {
    .host = "127.0.0.1";
    .port = "8000";
}

# Who may say, in X-Forwarded-Proto, that the visitor came by https. Hitch with the PROXY protocol need not be here.
acl terminators {
    "127.0.0.1";
    "::1";
}

sub vcl_recv {
    # Varnish itself has appended the visitor's address to X-Forwarded-For: TRUSTED_PROXIES = 1, and one more for
    # each terminator that speaks plain HTTP to Varnish.
    if (proxy.is_ssl()) {
        set req.http.X-Forwarded-Proto = "https";
    } elsif (remote.ip !~ terminators || req.http.X-Forwarded-Proto != "https") {
        set req.http.X-Forwarded-Proto = "http";
    }
    # A header that only a proxy may set, where Django is told to believe it (USE_X_FORWARDED_HOST).
    unset req.http.X-Forwarded-Host;
    unset req.http.X-Asked;

    # Pixel, noscript, Tracking API, calls, who-am-I, reset, variations, webhook: never from the cache, with all cookies
    # and headers.
    if (req.url ~ "^/s/[A-Za-z0-9_-]+/(p|n|e|q|w|r|v|h)(/|\?|$)") {
        return (pass);
    }
    # Personal pages get their cookies; a page that is missing here is shown as to a stranger.
    if (req.url ~ "^/(admin|accounts)(/|\?|$)") {
        return (pass);
    }
    if (req.method != "GET" && req.method != "HEAD") {
        return (pass);
    }
    # All other pages are the same for everybody, signed in or not, and Django never hears who asks: what it does not
    # know cannot get into the cache. (analytics.js reads its cookies in the browser.)
    unset req.http.Cookie;

    # analytics.js, its settings and bundles (FIRST_PARTY), and the page's script have no query string.
    if (req.url ~ "^/s/[A-Za-z0-9_-]+/(c|f)/") {
        set req.url = regsub(req.url, "\?.*$", "");
        unset req.http.X-Variations;
    } else {
        # Parameters that only analytics reads, in the browser, where they stay. Without them a campaign's visitors
        # share the page that everybody has.
        set req.http.X-Asked = regsub(req.url, "^[^?]*", "");
        set req.url = regsuball(req.url, "(?<=[?&])(utm_[a-z_]+|gclid|gclsrc|gbraid|wbraid|dclid|fbclid|msclkid|ttclid|twclid|li_fat_id|mc_[ce]id|_ga|_gl)=[^&]*(&|$)", "");
        set req.url = regsub(req.url, "[?&]$", "");
        if (req.url ~ "\?") {
            unset req.http.X-Asked;
        }
    }
    # Varnish's own vcl_recv follows; it passes requests with an Authorization.
}

sub vcl_hash {
    # Django redirects http to https, and the settings of analytics.js name the scheme. URL and host follow.
    hash_data(req.http.X-Forwarded-Proto);
}

sub vcl_backend_fetch {
    unset bereq.http.X-Asked;
}

sub vcl_backend_response {
    # Only what says that it may be kept. Varnish's own rules follow: nothing with a Set-Cookie, no-store or private.
    if (!beresp.http.Cache-Control && !beresp.http.Expires) {
        set beresp.uncacheable = true;
        set beresp.ttl = 60s;
    }
    # Where Django fails, the old page goes on.
    if (beresp.status >= 500 && bereq.is_bgfetch) {
        return (abandon);
    }
    # Once a page is too old, one visitor more gets it while a new one is fetched; and all of them while Django is down.
    if (beresp.ttl > 0s && beresp.grace < 1h) {
        set beresp.grace = 1h;
    }
}

sub vcl_deliver {
    # A redirect within the site, such as Django's to the path with a slash, keeps the campaign.
    if (req.http.X-Asked && resp.status >= 301 && resp.status <= 308 && resp.http.Location ~ "^/[^?#]*$") {
        set resp.http.Location = resp.http.Location + req.http.X-Asked;
    }
    if (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    } elsif (obj.uncacheable) {
        set resp.http.X-Cache = "PASS";
    } else {
        set resp.http.X-Cache = "MISS";
    }
}
