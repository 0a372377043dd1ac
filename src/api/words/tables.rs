//! Words of each meaning, as the services write them.

/// Words of one meaning.
pub(crate) struct Table {
    /// Words of a code that have the meaning together.
    pub(crate) codes: &'static [&'static [&'static str]],
    /// Words of a code that exclude the meaning.
    pub(crate) not_codes: &'static [&'static str],
    /// Parts of a sentence that have the meaning alone.
    pub(crate) phrases: &'static [&'static str],
    /// A word of `nouns` and a part of `states` in one sentence have the meaning together.
    pub(crate) nouns: &'static [&'static str],
    pub(crate) states: &'static [&'static str],
    /// Parts of a sentence that exclude the meaning.
    pub(crate) not_phrases: &'static [&'static str],
}

const NONE: Table =
    Table { codes: &[], not_codes: &[], phrases: &[], nouns: &[], states: &[], not_phrases: &[] };

/// Exhausted credit; waiting does not help. `quota` alone is not listed, because Google, Cerebras
/// and Azure use it for limits per minute.
pub(crate) const MONEY: Table = Table {
    codes: &[
        &["arrear"],
        &["arrears"],
        &["arrearage"],
        &["overdue"],
        &["unpaid"],
        &["billing"],
        &["billable"],
        &["payment"],
        &["spend"],
        &["spending"],
        &["credit"],
        &["credits"],
        &["balance"],
        &["funds"],
        &["wallet"],
        &["budget", "exceeded"],
        &["budget", "exhausted"],
        &["budget", "reached"],
        &["exceeded", "budget"],
        &["insufficient", "quota"],
        &["current", "quota"],
        &["free", "tier", "only"],
        &["organization", "usage", "limit"],
        &["consume", "quota"],
    ],
    // load_balancer_error, credit_card_detected, thinking_budget_exceeded, and OpenRouter's
    // openrouter_in_flight_budget.
    not_codes: &["load", "card", "thinking", "reasoning", "rate", "flight"],
    phrases: &[
        "good standing",
        "specified api usage limits",
        "workspace api usage limits",
        "free tier of the model has been exhausted",
        "billing to be enabled",
        "enable billing",
        "arrears",
        "top up",
        "free quota",
        "prepaid package",
        "trial has ended",
        "trial has expired",
        "subscription has expired",
        "inactive subscription",
        // Google's for a model that the plan does not include.
        "limit: 0,",
        "limit: 0\n",
        "余额不足",
        "额度不足",
        "额度已用",
        "配额不足",
        "剩余额度",
        "欠费",
        "请充值",
    ],
    nouns: &[
        "credit",
        "credits",
        "balance",
        "funds",
        "budget",
        "prepayment",
        "invoice",
        "invoices",
        "payment",
        "payments",
        "billing",
        "spend",
        "spending",
        "wallet",
    ],
    states: &[
        "insufficient",
        "not sufficient",
        "not enough",
        "n't enough",
        "too low",
        "below",
        "depleted",
        "exhausted",
        "exceeded",
        "overdue",
        "past due",
        "negative",
        "used all",
        "used up",
        "used their",
        "reached",
        "reaching",
        "ran out",
        "run out",
        "out of",
        "have any",
        "have no ",
        "has no ",
        "no credits",
        "no remaining",
        "unpaid",
        "failure to pay",
        "failed",
        "outstanding",
        "required",
        "hard limit",
        "expired",
    ],
    not_phrases: &[
        "rate limit",
        "per minute",
        "per second",
        "per hour",
        "requests per",
        "context window",
        "thinking",
        "reasoning",
        "permission",
        "scope",
        "have access",
        "credit card",
        "load balanc",
        // Part of OpenAI's and Google's sentence about any exhausted limit.
        "billing details",
    ],
};

/// Lack of capacity of the service, also under 429. Sentences about `your` limits are excluded.
pub(crate) const CAPACITY: Table = Table {
    codes: &[
        &["overloaded"],
        &["overload"],
        &["capacity"],
        &["busy"],
        &["queue", "full"],
        &["queue", "exceeded"],
    ],
    not_codes: &["context", "provisioned", "rate"],
    phrases: &[
        "overloaded",
        "over capacity",
        "at capacity",
        "at full capacity",
        "at max capacity",
        "at maximum capacity",
        "capacity exceeded",
        "capacity temporarily exceeded",
        "exceeded capacity",
        "no capacity",
        "insufficient capacity",
        "not enough capacity",
        "out of capacity",
        "lack of capacity",
        "high demand",
        "high load",
        "heavy load",
        "heavy traffic",
        "high traffic",
        "peak load",
        "busy",
        "queue is full",
        "insufficient resources",
        "no resources available",
        "no deployments available",
        "no available channel",
        "no available deployment",
        "no available server",
        "no available worker",
        "无可用渠道",
        "过载",
        "负载已饱和",
        "负载过高",
        "访问量过大",
        "系统繁忙",
        "服务器繁忙",
        "服务繁忙",
        "模型繁忙",
    ],
    not_phrases: &[
        "rate limit",
        "your plan",
        "your tier",
        "your account",
        "your organization",
        "your quota",
        "your capacity",
        "your provisioned",
        "your deployment",
        "you have exceeded",
        "you have reached",
        "you've exceeded",
        "you've reached",
        "you exceeded",
    ],
    ..NONE
};

/// A limit that waiting resolves, reported under 400 or 403.
pub(crate) const RATE: Table = Table {
    codes: &[
        &["rate", "limit"],
        &["rate", "limited"],
        &["ratelimit"],
        &["throttling"],
        &["throttled"],
        &["too", "many", "requests"],
        &["daily", "limit"],
        &["quota", "exceeded"],
        &["resource", "exhausted"],
    ],
    not_codes: &["invalid", "storage", "parameter"],
    phrases: &[
        "rate limit exceeded",
        "rate limit is exceeded",
        "rate limit reached",
        "exceeded the rate limit",
        "exceeded a secondary rate limit",
        "exceeded your rate limit",
        "too many requests",
        "call volume quota",
        "quota exceeded for",
        "be replenished",
        "throttled",
        "请求过于频繁",
        "速率限制",
    ],
    not_phrases: &["permission"],
    ..NONE
};

/// A key that is missing, wrong, expired or revoked, reported under 400 or 403 (Google, xAI,
/// Bedrock).
pub(crate) const BAD_KEY: Table = Table {
    codes: &[
        &["invalid", "api", "key"],
        &["api", "key", "invalid"],
        &["incorrect", "api", "key"],
        &["expired", "api", "key"],
        &["key", "expired"],
        &["expired", "key"],
        &["key", "revoked"],
        &["key", "disabled"],
        &["key", "suspended"],
        &["missing", "api", "key"],
        &["api", "key", "not", "found"],
        &["unrecognized", "client"],
        &["invalid", "client", "token"],
        &["expired", "token"],
        &["invalid", "credentials"],
        // LiteLLM's, which looks for a key that is not its own in a database that it does not have.
        &["no", "db", "connection"],
    ],
    not_codes: &["parameter", "model"],
    phrases: &[
        "unregistered callers",
        "no api key",
        "token is invalid",
        "token invalid",
        "token has expired",
        "token expired",
        "无效的令牌",
        "令牌已过期",
        "令牌状态不可用",
    ],
    not_phrases: &["stop token", "must be"],
    ..NONE
};

/// Terms for a credential in a sentence. `key` and `token` alone are not listed, because they are
/// members of the request's JSON as well.
pub(crate) const CREDENTIALS: &[&str] = &[
    "api key",
    "api-key",
    "api_key",
    "apikey",
    "security token",
    "access token",
    "auth token",
    "bearer token",
    "authentication token",
    "credentials",
    "subscription key",
    "access key",
];
pub(crate) const BAD_CREDENTIALS: &[&str] = &[
    "invalid",
    "incorrect",
    "not valid",
    "not found",
    "expired",
    "revoked",
    "not exist",
    "n't exist",
    "missing",
    "not provided",
    "n't provide",
    "wrong",
    "was reported",
    "unknown",
    "disabled",
    "deactivated",
    "suspended",
    "not active",
];
pub(crate) const NOT_CREDENTIALS: &[&str] =
    &["argument:", "argument supplied", "parameter", "field", "not allowed", "model"];

/// A valid key without permission, reported under 401.
pub(crate) const NOT_ALLOWED: Table = Table {
    codes: &[
        &["access", "denied"],
        &["permission"],
        &["permissions"],
        &["forbidden"],
        &["ip", "not", "authorized"],
        &["not", "allowed"],
        &["scope"],
        &["scopes"],
    ],
    phrases: &[
        "missing scopes",
        "insufficient permission",
        "not have permission",
        "not allowed to access",
        "not have access",
        "no access to",
        "can only access",
        "ip not authorized",
        "ip address is not",
        "allowlist",
        "whitelist",
    ],
    nouns: &["permission", "permissions", "scope", "scopes", "privilege", "privileges"],
    states: &["lack", "missing", "insufficient", "require", "not have", "n't have"],
    ..NONE
};

/// A country or region in which the service is not offered, reported under 400 (Anthropic, Google,
/// `OpenAI`).
pub(crate) const REGION: Table = Table {
    codes: &[&["unsupported", "country"], &["unsupported", "region"]],
    phrases: &[
        "unsupported countries",
        "unsupported country",
        "unsupported region",
        "region, or territory not supported",
        "not available in your region",
        "n't available in your region",
        "unavailable in your region",
        "not supported in your region",
        "not available in your country",
        "n't available in your country",
        "unavailable in your country",
        "not supported in your country",
        "user location is not supported",
    ],
    ..NONE
};

/// A closed account: Groq's code, and Anthropic's message under a general code.
pub(crate) const SHUT_OUT: Table =
    Table { codes: &[&["organization", "restricted"]], phrases: &["organization has been disabled"], ..NONE };

/// A model that does not exist, or no longer exists.
pub(crate) const NO_MODEL: Table = Table {
    codes: &[
        &["model", "not", "found"],
        &["model", "not", "available"],
        &["model", "not", "exist"],
        &["model", "not", "exists"],
        &["model", "not", "supported"],
        &["model", "not", "open"],
        &["no", "such", "model"],
        &["unknown", "model"],
        &["invalid", "model"],
        &["unsupported", "model"],
        &["model", "decommissioned"],
        &["model", "deprecated"],
        &["model", "retired"],
        &["deployment", "not", "found"],
    ],
    not_codes: &["parameter", "param", "value", "feature", "input", "output", "format", "response"],
    phrases: &[
        "invalid model",
        "unknown model",
        "no such model",
        "not a valid model",
        "model identifier is invalid",
        "non-serverless model",
        "model is not supported",
        "model not supported",
        "llm provider not provided",
        "模型不存在",
        "模型未找到",
    ],
    nouns: &["model", "models", "deployment"],
    states: &[
        "not exist",
        "n't exist",
        "not found",
        "not be found",
        "no longer available",
        "no longer supported",
        "been decommissioned",
        "been retired",
        "been deprecated",
        "been removed",
        "been shut down",
        "end of life",
        "end of its life",
    ],
    not_phrases: &[
        "in this model",
        "for this model",
        "with this model",
        "by this model",
        "on this model",
        "parameter",
        "file",
    ],
};

/// A model that no longer exists.
pub(crate) const RETIRED: Table = Table {
    codes: &[&["decommissioned"], &["model", "deprecated"], &["retired"], &["end", "of", "life"]],
    phrases: &[
        "decommissioned",
        "been retired",
        "been shut down",
        "been deprecated",
        "no longer available",
        "end of life",
        "end of its life",
    ],
    ..NONE
};

/// A request above the limit itself, so that waiting does not help (OpenAI, Groq).
pub(crate) const TOO_LARGE: Table = Table { phrases: &["request too large"], ..NONE };

/// An unknown path, which may be that of the models (OpenAI, Groq, Fastify, Express).
pub(crate) const NO_PATH: Table = Table {
    phrases: &["invalid url", "unknown request url", "route get", "route post", "cannot get", "cannot post"],
    ..NONE
};

/// Responses of routers, ingresses and tunnels whose application is gone: nginx' ingress, Go's mux
/// and Traefik, APISIX, Kong, Heroku, Railway, Vercel, ngrok, Azure App Service.
pub(crate) const LOST_ROUTE: &[&str] = &[
    "default backend",
    "404 page not found",
    "404 route not found",
    "no route matched",
    "no such app",
    "application not found",
    "deployment could not be found",
    "err_ngrok_",
    "web app is stopped",
    "web app - unavailable",
    "site is disabled",
    "tunnel not found",
];

/// Headers of such responses: name, and value unless any value counts.
pub(crate) const LOST_ROUTE_HEADERS: &[(&str, Option<&str>)] = &[
    ("ngrok-error-code", None),
    ("x-vercel-error", None),
    ("x-render-routing", Some("no-server")),
    ("x-railway-fallback", Some("true")),
];
