/* The extension's only code: it keeps which rule was applied to which request, for the tests to read. */
chrome.declarativeNetRequest.onRuleMatchedDebug.addListener(({ request, rule }) =>
  chrome.storage.local.set({ [`${request.requestId} ${rule.ruleId}`]: [request.url, request.type, rule.ruleId] }),
);
