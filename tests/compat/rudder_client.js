// A page that has RudderStack's SDK from npm, with a source that nobody needs to ask for. OPTIONS are of the page.
import { RudderAnalytics } from "@rudderstack/analytics-js/bundled";

const { key, api, options } = window.OPTIONS;
const source = { id: "site", name: "Site", writeKey: key, enabled: true, workspaceId: "site", destinations: [] };
source.config = { statsCollection: { errors: { enabled: false }, metrics: { enabled: false } } };
const rudder = new RudderAnalytics();
rudder.load(key, location.origin + api, { ...options, getSourceConfig: () => ({ source }) });
rudder.page("Shop");
rudder.track("Bought", { price: 9.5 });
rudder.identify("someone", { plan: "gold" });
rudder.group("staff", { size: 5 });
