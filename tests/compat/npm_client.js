// A page that has analytics.js from npm, bundled with its own code. OPTIONS are of the page.
import { AnalyticsBrowser } from "@segment/analytics-next";

const { key, cdn, strategy } = window.OPTIONS;
const integrations = { "Segment.io": { deliveryStrategy: strategy } };
const analytics = AnalyticsBrowser.load({ writeKey: key, cdnURL: cdn }, { integrations });
analytics.page("Shop");
analytics.track("Bought", { price: 9.5 });
analytics.identify("someone", { plan: "gold" });
