//! Tables of refusals by meaning: possible answers of services, and answers with the same words in
//! another meaning.

use langmart_prober::outcome::{Api, Check, Fault, LimitedBy, Outcome, Reason};

use crate::harness::{
    probes::{detail_of, probe, provider, run},
    raw::{RawServer, on_the_wire},
};

/// An answer: API, status line and headers, body.
type Row = (Api, &'static str, &'static str);

const OPENAI: Api = Api::Openai;

fn play(server: &RawServer, check: Check, &(api, head, body): &Row) -> Outcome {
    server.play(on_the_wire(&format!("HTTP/1.1 {head}\nDate: Sun, 22 Nov 2026 08:00:00 GMT\n\n{body}")));
    run(probe(provider(api, &format!("http://{}", server.address)), check))
}

/// Checks that every row has this reason and fault, and reports all wrong rows together.
#[track_caller]
fn check_all(check: Check, reason: Reason, fault: Fault, rows: &[Row]) {
    let server = RawServer::start();
    let wrong: Vec<String> = rows
        .iter()
        .map(|row| (row, play(&server, check, row)))
        .filter(|(_, outcome)| (outcome.reason, outcome.fault) != (reason, fault) || outcome.hint.is_empty())
        .map(|(row, outcome)| format!("{}/{}: {row:?}", outcome.reason, outcome.fault))
        .collect();
    assert!(wrong.is_empty(), "not {reason}/{fault}:\n{}", wrong.join("\n"));
}

/// Checks that no row has this reason.
#[track_caller]
fn check_none(check: Check, reason: Reason, rows: &[Row]) {
    let server = RawServer::start();
    let found = rows.iter().filter(|row| play(&server, check, row).reason == reason);
    let wrong: Vec<String> = found.map(|row| format!("{row:?}")).collect();
    assert!(wrong.is_empty(), "{reason} in:\n{}", wrong.join("\n"));
}

/// Answers to a request without credit.
const EMPTY_WALLETS: &[Row] = &[
    (OPENAI, "401 X", r#"{"error":{"message":"x","code":"insufficient_quota"}}"#),
    (OPENAI, "404 X", r#"{"error":{"message":"x","type":"insufficient_quota"}}"#),
    (OPENAI, "422 X", r#"{"error":{"message":"x","type":"insufficient_quota"}}"#),
    (OPENAI, "500 X", r#"{"error":{"message":"x","type":"insufficient_quota"}}"#),
    (OPENAI, "503 X", r#"{"error":{"message":"x","type":"insufficient_quota"}}"#),
    (
        OPENAI,
        "412 X",
        r#"{"error":{"message":"Account is suspended: unpaid invoices","code":"PRECONDITION_FAILED"}}"#,
    ),
    (OPENAI, "403 X", r#"{"code":"x","error":"Your team doesn't have any credits yet."}"#),
    (OPENAI, "403 X", r#"{"error":{"code":"AccountBalanceNotEnough","message":"x"}}"#),
    (OPENAI, "400 X", r#"{"error":{"code":"ACCOUNT_IN_ARREARS","message":"x"}}"#),
    (OPENAI, "403 X", r#"{"code":403,"reason":"PAYMENT_OVERDUE","message":"x"}"#),
    (OPENAI, "403 X", r#"{"msg":"Insufficient funds in your wallet"}"#),
    (OPENAI, "403 X", r#"{"error_msg":"Your balance is negative, please top up"}"#),
    (OPENAI, "400 X", r#"{"detail":"Budget exceeded for key: spend 10.2, limit 10.0"}"#),
    (OPENAI, "429 X", r#"{"errors":[{"message":"You have run out of credits","code":7}]}"#),
    (OPENAI, "403 X", r#"{"error":{"message":"用户余额不足","type":"new_api_error","code":"x"}}"#),
    (OPENAI, "403 X", r#"{"error":{"message":"账户欠费，请充值","code":"x"}}"#),
    (OPENAI, "429 X", r#"{"error":{"code":"1113","message":"余额不足或无可用资源包,请充值。"}}"#),
    (OPENAI, "400 X", r#"{"error":{"message":"litellm.BudgetExceededError: x","type":"x","code":"400"}}"#),
    (
        OPENAI,
        "429 X",
        r#"{"error":{"message":"litellm.RateLimitError: OpenAIException - You exceeded your current quota, please check your plan and billing details.","type":"throttling_error","code":"429"}}"#,
    ),
    (
        OPENAI,
        "403 X",
        r#"{"error":{"code":"AllocationQuota.FreeTierOnly","message":"The free tier of the model has been exhausted."}}"#,
    ),
    (
        OPENAI,
        "400 X",
        r#"{"object":"error","message":"Your monthly spending limit has been reached","code":"x"}"#,
    ),
    (OPENAI, "402 X", r#"{"error":"x"}"#),
    (
        OPENAI,
        "200 X",
        r#"{"choices":null,"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#,
    ),
    (
        Api::Anthropic,
        "429 X",
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"x","details":{"error_code":"workspace_spend_limit_reached"}}}"#,
    ),
    (
        Api::Anthropic,
        "403 X",
        r#"{"type":"error","error":{"type":"permission_error","message":"x","details":{"error_code":"account_not_billable"}}}"#,
    ),
    (
        Api::Google,
        "403 X",
        r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"This API method requires billing to be enabled."}}"#,
    ),
    (OPENAI, "429 X", "You exceeded your current quota, please check your plan and billing details."),
    (
        OPENAI,
        "429 X",
        "event: error\ndata: {\"error\":{\"message\":\"x\",\"code\":\"insufficient_quota\"}}\n\n",
    ),
    (
        Api::Google,
        "429 X",
        r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota.\n* Quota exceeded for metric: x, limit: 0"}}"#,
    ),
    (
        Api::Google,
        "429 X",
        r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x","details":[{"violations":[{"quotaId":"y","quotaValue":"0"}]}]}}"#,
    ),
];

#[test]
fn empty_wallet_is_billing_under_any_status() {
    check_all(Check::Chat, Reason::Billing, Fault::Caller, EMPTY_WALLETS);
    check_all(
        Check::Chat,
        Reason::Billing,
        Fault::Provider,
        &[
            (
                Api::Langmart,
                "412 X",
                r#"{"error":{"code":"PROVIDER_FIREWORKS_412","message":"Account is suspended, possibly due to reaching the monthly spending limit"}}"#,
            ),
            (
                Api::Langmart,
                "502 X",
                r#"{"error":{"code":"PROVIDER_ALIBABA_400","message":"Access denied, please make sure your account is in good standing."}}"#,
            ),
            (
                Api::Openrouter,
                "403 X",
                r#"{"error":{"code":403,"message":"Provider returned error","metadata":{"provider_name":"Newcomer","raw":"{\"error\":{\"code\":\"NOT_ENOUGH_BALANCE\"}}"}}}"#,
            ),
            (
                Api::Openrouter,
                "402 X",
                r#"{"error":{"code":402,"message":"Provider returned error","metadata":{"provider_name":"Parasail"}}}"#,
            ),
        ],
    );
}

/// Answers with words of money that are about something else.
const WORDS_OF_MONEY: &[Row] = &[
    (
        OPENAI,
        "429 X",
        r#"{"message":"Requests per minute limit exceeded","code":"request_quota_exceeded","param":"quota"}"#,
    ),
    (OPENAI, "429 X", r#"{"message":"Tokens per minute limit exceeded","code":"token_quota_exceeded"}"#),
    (
        OPENAI,
        "429 X",
        r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day"}}"#,
    ),
    (
        OPENAI,
        "429 X",
        r#"{"error":{"message":"Rate limit reached, purchase credits to raise it","code":"rate_limit_exceeded"}}"#,
    ),
    (OPENAI, "502 X", r#"{"error":{"message":"x","code":"load_balancer_error"}}"#),
    (OPENAI, "503 X", r#"{"error":{"message":"The load balancer has failed","code":"x"}}"#),
    (
        OPENAI,
        "400 X",
        r#"{"error":{"message":"`max_tokens` must be greater than `thinking.budget_tokens`"}}"#,
    ),
    (
        OPENAI,
        "400 X",
        r#"{"error":{"message":"The thinking budget exceeded the maximum","code":"thinking_budget_exceeded"}}"#,
    ),
    (
        OPENAI,
        "400 X",
        r#"{"error":{"message":"The prompt has a credit card number, which is required to be removed","code":"credit_card_detected"}}"#,
    ),
    (
        OPENAI,
        "403 X",
        r#"{"error":{"message":"You have insufficient permissions to read the balance","code":"x"}}"#,
    ),
    (
        OPENAI,
        "401 X",
        r#"{"error":{"message":"Incorrect API key provided. See the billing page.","code":"invalid_api_key"}}"#,
    ),
    (
        OPENAI,
        "429 X",
        r#"[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: x, limit: 20, model: y","status":"RESOURCE_EXHAUSTED"}}]"#,
    ),
    (
        OPENAI,
        "429 X",
        r#"{"error":{"message":"litellm.RateLimitError: geminiException - You exceeded your current quota, please check your plan and billing details","code":"429"}}"#,
    ),
    (
        Api::Google,
        "429 X",
        r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED"}}"#,
    ),
    (
        Api::Langmart,
        "429 X",
        r#"{"error":{"code":"PROVIDER_GOOGLE_429","message":"You exceeded your current quota, please check your plan and billing details."}}"#,
    ),
    (
        Api::Openrouter,
        "402 X",
        r#"{"error":{"code":402,"message":"x","metadata":{"limit_source":"openrouter_in_flight_budget"}}}"#,
    ),
    (OPENAI, "500 X", "credit balance is too low"),
    (OPENAI, "404 X", "Cannot GET /user_balance"),
    (OPENAI, "401 X", "Authentication required for /api/account/balance"),
    (OPENAI, "429 X", "RESOURCE_EXHAUSTED: You exceeded your current quota."),
    (OPENAI, "429 X", r#"{"error":{"message":"Rate limit exceeded. Remaining limit: 0"}}"#),
    (OPENAI, "503 X", "<html>insufficient_quota</html>"),
];

#[test]
fn words_of_money_alone_are_not_billing() {
    check_none(Check::Chat, Reason::Billing, WORDS_OF_MONEY);
}

/// Answers of a service without capacity.
const NO_CAPACITY: &[Row] = &[
    (OPENAI, "429 X", r#"{"error":{"message":"x","type":"server_is_overloaded"}}"#),
    (OPENAI, "429 X", r#"{"error":{"message":"x","code":"overloaded_error"}}"#),
    (OPENAI, "429 X", r#"{"error":{"message":"x","code":"ServerOverloaded"}}"#),
    (OPENAI, "429 X", r#"{"error":{"message":"x","code":"NO_CAPACITY"}}"#),
    (OPENAI, "429 X", r#"{"error":{"message":"The model is at capacity, try again","code":null}}"#),
    (OPENAI, "429 X", r#"{"message":"The service is too busy right now"}"#),
    (OPENAI, "429 X", r#"{"error":"Model busy"}"#),
    (OPENAI, "429 X", r#"{"detail":"We are experiencing high demand. Your request was dropped."}"#),
    (OPENAI, "429 X", r#"{"error":{"message":"No deployments available for selected model","code":"429"}}"#),
    (OPENAI, "429 X", r#"{"error":{"code":"1305","message":"该模型当前访问量过大，请您稍后再试"}}"#),
    (OPENAI, "429 X", r#"{"error":{"message":"当前分组上游负载已饱和，请稍后再试","code":"x"}}"#),
    (OPENAI, "503 X", r#"{"error":{"message":"服务器繁忙","code":"x"}}"#),
    (OPENAI, "503 X", r#"{"error":{"message":"x","code":"slow_down"}}"#),
    (OPENAI, "503 X", r#"{"errors":["The engine is overloaded"]}"#),
    (OPENAI, "503 X", r#"{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}"#),
    (OPENAI, "500 X", r#"{"error":{"message":"x","type":"overloaded_error"}}"#),
    (
        Api::Anthropic,
        "429 X",
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    ),
    (
        Api::Langmart,
        "429 X",
        r#"{"error":{"code":"PROVIDER_MISTRAL_429","message":"Service tier capacity exceeded for this model."}}"#,
    ),
    (
        Api::Openrouter,
        "429 X",
        r#"{"error":{"code":429,"message":"x","metadata":{"provider_name":"Chutes","raw":"{\"detail\":\"engine overloaded\"}"}}}"#,
    ),
];

#[test]
fn own_capacity_is_overloaded_under_429_and_503() {
    check_all(Check::Chat, Reason::Overloaded, Fault::Provider, NO_CAPACITY);
    check_none(
        Check::Chat,
        Reason::Overloaded,
        &[
            (OPENAI, "429 X", r#"{"error":{"message":"x","code":"slow_down"}}"#),
            (OPENAI, "429 X", r#"{"error":{"message":"You have reached the capacity of your plan"}}"#),
            (
                OPENAI,
                "429 X",
                r#"{"error":{"message":"You have exceeded your provisioned throughput: capacity exceeded"}}"#,
            ),
            (
                OPENAI,
                "429 X",
                r#"{"error":{"message":"Rate limit reached to keep us from being overloaded"}}"#,
            ),
            (OPENAI, "429 X", r#"{"error":{"message":"Too many requests","code":"rate_limit_exceeded"}}"#),
            (OPENAI, "429 X", r#"{"error":{"message":"x","code":"provisioned_capacity_exceeded"}}"#),
            (OPENAI, "503 X", r#"{"error":{"message":"Service Unavailable"}}"#),
            (OPENAI, "503 X", r#"{"error":{"message":"x","status":"UNAVAILABLE"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"The model is overloaded"}}"#),
            (OPENAI, "500 X", r#"{"error":{"message":"high demand"}}"#),
            (OPENAI, "429 X", "<html>overloaded</html>"),
            (OPENAI, "429 X", r#"{"error":{"message":"x","code":"context_capacity_exceeded"}}"#),
        ],
    );
}

#[test]
fn lost_route_is_unavailable() {
    let rows: &[Row] = &[
        (OPENAI, "404 X", "default backend - 404"),
        (OPENAI, "404 X", "404 page not found"),
        (OPENAI, "404 X", ""),
        (OPENAI, "404 X", "Not Found"),
        (OPENAI, "404 X", "<html><h1>404 Not Found</h1></html>"),
        (OPENAI, "405 X", "<html><h1>405 Not Allowed</h1></html>"),
        (OPENAI, "404 X", "{}"),
        (OPENAI, "404 X", r#"{"error_msg":"404 Route Not Found"}"#),
        (OPENAI, "404 X", r#"{"message":"no Route matched with those values"}"#),
        (OPENAI, "404 X", r#"{"status":"error","code":404,"message":"Application not found"}"#),
        (
            OPENAI,
            "404 X\nx-vercel-error: DEPLOYMENT_NOT_FOUND",
            "The deployment could not be found on Vercel.",
        ),
        (OPENAI, "404 X\nx-render-routing: no-server", r#"{"message":"Not Found"}"#),
        (OPENAI, "404 X\nngrok-error-code: ERR_NGROK_3200", r#"{"error":{"message":"x","code":"y"}}"#),
        (OPENAI, "403 X", "<html><h1>Error 403 - This web app is stopped.</h1></html>"),
    ];
    check_all(Check::Chat, Reason::Unavailable, Fault::Provider, rows);
    check_all(Check::Models, Reason::Unavailable, Fault::Provider, rows);
    check_all(Check::Health, Reason::Unavailable, Fault::Provider, rows);
    check_none(
        Check::Chat,
        Reason::Unavailable,
        &[
            (
                OPENAI,
                "404 X",
                r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#,
            ),
            (
                OPENAI,
                "404 X",
                r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
            ),
            (OPENAI, "404 X", r#"{"error":{"message":"Invalid URL (POST /chat/completions)","code":null}}"#),
            (OPENAI, "404 X", r#"{"detail":"Not Found"}"#),
            (OPENAI, "404 X", r#"{"error":"Cannot POST /chat/completions"}"#),
            (
                OPENAI,
                "404 X",
                r#"{"message":"Route POST:/x not found","error":"Not Found","statusCode":404}"#,
            ),
            (OPENAI, "404 X", r#"{"error":{"message":"Not Found","code":"x"}}"#),
            (
                Api::Anthropic,
                "404 X",
                r#"{"type":"error","error":{"type":"not_found_error","message":"Not Found"}}"#,
            ),
            (OPENAI, "403 X", "<html><h1>403 Forbidden</h1></html>"),
            (OPENAI, "403 X", ""),
            (OPENAI, "400 X", "default backend - 404"),
            (OPENAI, "401 X", "404 page not found"),
            (Api::Langmart, "404 X", r#"{"error":{"code":"PROVIDER_OPENAI_404","message":"x"}}"#),
        ],
    );
}

#[test]
fn failures_of_the_service_under_4xx_are_its_own() {
    check_all(
        Check::Chat,
        Reason::ServerError,
        Fault::Provider,
        &[
            (OPENAI, "424 X", r#"{"error":"Request failed during generation","error_type":"generation"}"#),
            (OPENAI, "499 X", r#"{"error":{"message":"The operation was cancelled."}}"#),
            (Api::Groq, "424 X", "{}"),
            (Api::Google, "499 X", r#"{"error":{"code":499,"status":"CANCELLED"}}"#),
            (Api::Langmart, "502 X", r#"{"error":{"code":"PROVIDER_GOOGLE_499","message":"x"}}"#),
            (Api::Langmart, "503 X", r#"{"error":{"code":"PROVIDER_NEWCOMER_424","message":"x"}}"#),
        ],
    );
}

/// Upstreams of OpenRouter that are not on the allowlist.
const UPSTREAMS: &[&str] = &[
    "Chutes",
    "OpenInference",
    "Venice",
    "Parasail",
    "AtlasCloud",
    "GMICloud",
    "Z.AI",
    "Phala",
    "WandB",
    "X",
];

#[test]
fn unknown_upstreams_of_openrouter_are_blamed() {
    let server = RawServer::start();
    for name in UPSTREAMS {
        for (status, reason) in [
            (401, Reason::AuthFailed),
            (402, Reason::Billing),
            (403, Reason::Permission),
            (429, Reason::RateLimited),
            (500, Reason::ServerError),
            (529, Reason::Overloaded),
        ] {
            let body = format!(
                r#"{{"error":{{"message":"Provider returned error","code":{status},"metadata":{{"provider_name":"{name}"}}}}}}"#
            );
            server.play(on_the_wire(&format!("HTTP/1.1 {status} X\n\n{body}")));
            let outcome =
                run(probe(provider(Api::Openrouter, &format!("http://{}", server.address)), Check::Chat));
            let found = (outcome.reason, outcome.fault, outcome.upstream);
            assert_eq!(found, (reason, Fault::Provider, Some("other")), "{name} {status}");
        }
    }
    check_all(
        Check::Chat,
        Reason::RateLimited,
        Fault::Caller,
        &[
            (
                Api::Openrouter,
                "429 X",
                r#"{"error":{"message":"x","code":429,"metadata":{"provider_name":""}}}"#,
            ),
            (
                Api::Openrouter,
                "429 X",
                r#"{"error":{"message":"x","code":429,"metadata":{"provider_name":null}}}"#,
            ),
            (
                Api::Openrouter,
                "429 X",
                r#"{"error":{"message":"x","code":429,"metadata":{"provider_name":7}}}"#,
            ),
            (Api::Openrouter, "429 X", r#"{"error":{"message":"Chutes","code":429,"metadata":{}}}"#),
            (
                OPENAI,
                "429 X",
                r#"{"error":{"message":"x","code":429,"metadata":{"provider_name":"Chutes"}}}"#,
            ),
        ],
    );
}

/// Answers to a valid key that lacks a permission.
const NO_PERMISSION: &[Row] = &[
    (
        OPENAI,
        "401 X",
        r#"{"error":{"message":"key not allowed to access model","type":"key_model_access_denied","code":"401"}}"#,
    ),
    (
        OPENAI,
        "401 X",
        r#"{"error":{"code":"PermissionDenied","message":"Principal does not have access to API/Operation."}}"#,
    ),
    (OPENAI, "401 X", r#"{"error":{"message":"x","code":"ip_not_authorized"}}"#),
    (
        OPENAI,
        "401 X",
        r#"{"error":{"message":"You have insufficient permissions for this operation","code":null}}"#,
    ),
    (OPENAI, "401 X", r#"{"detail":"This key can only access models=['x']"}"#),
    (OPENAI, "401 X", r#"{"error":"Your IP address is not on the allowlist"}"#),
    (OPENAI, "401 X", r#"{"error":{"message":"x","type":"team_access_denied"}}"#),
    (OPENAI, "401 X", r#"{"error":{"message":"You do not have access to this project","code":"x"}}"#),
    (OPENAI, "401 X", r#"{"error":{"message":"x","code":"insufficient_scope"}}"#),
    (OPENAI, "403 X", r#"{"error":{"message":"x","code":"unsupported_country_region_territory"}}"#),
    (OPENAI, "451 X", r#"{"detail":"Unavailable in your region"}"#),
    (
        Api::Anthropic,
        "400 X",
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"Access to Anthropic models is not allowed from unsupported countries, regions, or territories."}}"#,
    ),
    (OPENAI, "400 X", r#"{"error":{"message":"User location is not supported for the API use."}}"#),
];

#[test]
fn good_key_without_the_right_is_permission() {
    check_all(Check::Chat, Reason::Permission, Fault::Caller, NO_PERMISSION);
}

/// Answers to a bad key.
const BAD_KEYS: &[Row] = &[
    (
        OPENAI,
        "401 X",
        r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#,
    ),
    (
        OPENAI,
        "401 X",
        r#"{"error":{"message":"Invalid API key. You do not have access.","code":"access_denied"}}"#,
    ),
    (OPENAI, "401 X", r#"{"error":{"message":"You didn't provide an API key.","code":null}}"#),
    (OPENAI, "401 X", r#"{"error":"Unauthorized"}"#),
    (OPENAI, "401 X", r#"{"error":{"message":"x","code":"not_authorized"}}"#),
    (
        OPENAI,
        "400 X",
        r#"{"error":{"code":400,"message":"API key not found. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}"#,
    ),
    (OPENAI, "403 X", r#"{"message":"The security token included in the request is invalid."}"#),
    (OPENAI, "403 X", r#"{"error":{"message":"x","code":"UnrecognizedClientException"}}"#),
    (OPENAI, "403 X", r#"{"error":{"message":"Your access token has expired"}}"#),
    (OPENAI, "400 X", r#"{"detail":"Incorrect API-key"}"#),
    (OPENAI, "403 X", r#"{"msg":"the credentials were revoked"}"#),
    (OPENAI, "400 X", r#"{"error":{"message":"x","code":"expired_api_key"}}"#),
    (
        OPENAI,
        "400 X",
        r#"{"error":{"message":"Authentication Error - Expired Key.","type":"expired_key","param":"x","code":"400"}}"#,
    ),
    (
        OPENAI,
        "400 X",
        r#"{"error":{"message":"No connected db.","type":"no_db_connection","param":null,"code":"400"}}"#,
    ),
];

#[test]
fn words_of_bad_keys_are_auth_failed() {
    check_all(Check::Chat, Reason::AuthFailed, Fault::Caller, BAD_KEYS);
    check_none(
        Check::Chat,
        Reason::AuthFailed,
        &[
            (OPENAI, "400 X", r#"{"error":{"message":"Unrecognized request argument supplied: api_key"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"Invalid key 'foo' in the request body"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"invalid token at position 3 of the JSON"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"missing required key: model"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"Invalid parameter: api_key"}}"#),
            (OPENAI, "403 X", r#"{"error":{"message":"The API key may not use this region"}}"#),
            (OPENAI, "403 X", r#"{"error":{"message":"x","code":"API_KEY_SERVICE_BLOCKED"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"max_tokens is invalid"}}"#),
            (
                OPENAI,
                "403 X",
                r#"{"error":{"message":"API key not allowed to access the model, or unknown model"}}"#,
            ),
            (OPENAI, "404 X", r#"{"error":{"message":"API key not found"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"x","type":"db_connection_error"}}"#),
            (OPENAI, "500 X", r#"{"error":{"message":"x","type":"no_db_connection"}}"#),
        ],
    );
}

#[test]
fn retired_model_is_model_not_found() {
    let rows: &[Row] = &[
        (OPENAI, "400 X", r#"{"error":{"message":"x","code":"model_not_available"}}"#),
        (OPENAI, "400 X", r#"{"error":{"message":"x","code":"unknown_model"}}"#),
        (OPENAI, "400 X", r#"{"error":{"message":"x","code":"ModelNotFound"}}"#),
        (OPENAI, "400 X", r#"{"message":"The provided model identifier is invalid."}"#),
        (OPENAI, "404 X", r#"{"detail":"Model not found"}"#),
        (OPENAI, "422 X", r#"{"error":{"message":"The model 'x' was not found"}}"#),
        (OPENAI, "400 X", r#"{"error":{"message":"模型不存在"}}"#),
        (OPENAI, "400 X", r#"{"error":{"message":"The model x has been retired"}}"#),
        (OPENAI, "403 X", r#"{"error":{"message":"x","type":"model_not_found"}}"#),
        (OPENAI, "410 X", r#"{"error":{"message":"Gone"}}"#),
        (OPENAI, "400 X", r#"{"error":{"message":"x","code":"model_deprecated"}}"#),
        (
            Api::Anthropic,
            "404 X",
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-3"}}"#,
        ),
    ];
    check_all(Check::Chat, Reason::ModelNotFound, Fault::Caller, rows);
    let server = RawServer::start();
    for row in [&rows[7], &rows[9], &rows[10]] {
        let outcome = play(&server, Check::Chat, row);
        assert!(detail_of(&outcome).contains("retired") && outcome.hint.contains("retired"), "{outcome:?}");
    }
    check_none(
        Check::Chat,
        Reason::ModelNotFound,
        &[
            (
                OPENAI,
                "400 X",
                r#"{"error":{"message":"'max_tokens' is not supported with this model","code":"unsupported_parameter"}}"#,
            ),
            (OPENAI, "400 X", r#"{"error":{"message":"The tool was not found for this model"}}"#),
            (
                OPENAI,
                "400 X",
                r#"{"error":{"message":"The file that the model should read does not exist"}}"#,
            ),
            (OPENAI, "400 X", r#"{"error":{"message":"x","code":"invalid_model_parameter"}}"#),
            (
                OPENAI,
                "503 X",
                r#"{"error":{"message":"The model is not available","code":"model_not_available"}}"#,
            ),
            (OPENAI, "429 X", r#"{"error":{"message":"x","code":"model_overloaded"}}"#),
            (
                OPENAI,
                "400 X",
                r#"{"error":{"message":"Invalid value: model must be a string","code":"invalid_type"}}"#,
            ),
            (OPENAI, "500 X", r#"{"error":{"message":"the model does not exist"}}"#),
            (OPENAI, "401 X", r#"{"error":{"message":"key not allowed to access model"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"The model produced invalid content"}}"#),
        ],
    );
}

#[test]
fn gone_path_without_a_model_is_no_missing_model() {
    let gone: &[Row] = &[
        (OPENAI, "410 X", r#"{"error":{"message":"Gone"}}"#),
        (OPENAI, "410 X", r#"{"error":{"message":"This version of the API has been removed"}}"#),
    ];
    check_none(Check::Models, Reason::ModelNotFound, gone);
    check_none(Check::Http, Reason::ModelNotFound, gone);
    check_all(
        Check::Http,
        Reason::ModelNotFound,
        Fault::Caller,
        &[
            (OPENAI, "410 X", r#"{"error":{"message":"x","code":"model_not_found"}}"#),
            (OPENAI, "410 X", r#"{"error":{"message":"The model x has been retired"}}"#),
        ],
    );
}

#[test]
fn temporary_limit_is_rate_limited() {
    check_all(
        Check::Chat,
        Reason::RateLimited,
        Fault::Caller,
        &[
            (
                OPENAI,
                "403 X",
                r#"{"statusCode":403,"message":"Out of call volume quota. Quota will be replenished in 07:01:20."}"#,
            ),
            (OPENAI, "403 X", r#"{"message":"API rate limit exceeded for 1.2.3.4."}"#),
            (
                OPENAI,
                "403 X",
                r#"{"error":{"errors":[{"reason":"userRateLimitExceeded"}],"code":403,"message":"x"}}"#,
            ),
            (
                OPENAI,
                "403 X",
                r#"{"error":{"errors":[{"reason":"dailyLimitExceeded"}],"code":403,"message":"x"}}"#,
            ),
            (OPENAI, "400 X", r#"{"__type":"ThrottlingException","message":"Rate limit exceeded"}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"x","code":"too_many_requests"}}"#),
            (OPENAI, "403 X", r#"{"detail":"Too Many Requests"}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"请求过于频繁","code":"x"}}"#),
            (OPENAI, "403 X", r#"{"error":{"message":"You have exceeded a secondary rate limit"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"x","code":"Throttling.RateQuota"}}"#),
        ],
    );
    check_none(
        Check::Chat,
        Reason::RateLimited,
        &[
            (OPENAI, "403 X", r#"{"error":{"message":"You have no permission to see rate limits"}}"#),
            (OPENAI, "413 X", r#"{"error":{"message":"Request too large","code":"rate_limit_exceeded"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"x","code":"invalid_rate_limit_parameter"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"limit must be below 100"}}"#),
            (OPENAI, "403 X", r#"{"error":{"message":"x","code":"storage_quota_exceeded"}}"#),
            (OPENAI, "500 X", r#"{"error":{"message":"rate limit exceeded"}}"#),
            (OPENAI, "404 X", r#"{"error":{"message":"rate limit exceeded"}}"#),
            (OPENAI, "403 X", "<html>Too Many Requests</html>"),
            (OPENAI, "403 X", r#"{"error":{"message":"access is limited in your region"}}"#),
            (OPENAI, "400 X", r#"{"error":{"message":"requests of this kind are too many to list"}}"#),
        ],
    );
}

/// Limits by status line and body.
const LIMITS: &[(LimitedBy, Api, &str, &str)] = &[
    (
        LimitedBy::Requests,
        OPENAI,
        "",
        r#"{"error":{"message":"x","type":"requests","code":"rate_limit_exceeded"}}"#,
    ),
    (
        LimitedBy::Requests,
        OPENAI,
        "",
        r#"{"error":{"message":"Rate limit reached on requests per min (RPM): Limit 60"}}"#,
    ),
    (LimitedBy::Requests, OPENAI, "", r#"{"error":{"message":"Model rate limit exceeded. RPM limit=1"}}"#),
    (
        LimitedBy::Requests,
        OPENAI,
        "",
        r#"{"message":"Requests per minute limit exceeded","code":"request_quota_exceeded"}"#,
    ),
    (
        LimitedBy::Requests,
        OPENAI,
        "",
        r#"{"error":{"message":"You have exceeded the call rate limit of your tier"}}"#,
    ),
    (
        LimitedBy::Requests,
        Api::Openrouter,
        "",
        r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-min."}}"#,
    ),
    (
        LimitedBy::Requests,
        OPENAI,
        "\nx-ratelimit-limit-requests: 60\nx-ratelimit-remaining-requests: 0",
        "{}",
    ),
    (
        LimitedBy::Requests,
        OPENAI,
        "\nRateLimit: \"api\";r=0;t=231\nRateLimit-Policy: \"api\";q=500;w=300",
        "{}",
    ),
    (LimitedBy::Requests, Api::Langmart, "\nX-RateLimit-Limit: 60\nX-RateLimit-Remaining: 0", "{}"),
    (
        LimitedBy::Requests,
        Api::Google,
        "",
        r#"{"error":{"details":[{"violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel"}]}]}}"#,
    ),
    (
        LimitedBy::Tokens,
        OPENAI,
        "",
        r#"{"error":{"message":"x","type":"tokens","code":"rate_limit_exceeded"}}"#,
    ),
    (
        LimitedBy::Tokens,
        OPENAI,
        "",
        r#"{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 1, Used 1, Requested 1."}}"#,
    ),
    (
        LimitedBy::Tokens,
        OPENAI,
        "",
        r#"{"error":{"message":"Requests to this operation have exceeded token rate limit of your tier"}}"#,
    ),
    (LimitedBy::Tokens, OPENAI, "", r#"{"message":"x","code":"token_quota_exceeded"}"#),
    (
        LimitedBy::Tokens,
        OPENAI,
        "\nx-ratelimit-limit-requests: 60\nx-ratelimit-remaining-requests: 5\nx-ratelimit-limit-tokens: 9\nx-ratelimit-remaining-tokens: 0",
        "{}",
    ),
    (
        LimitedBy::InputTokens,
        Api::Anthropic,
        "",
        r#"{"error":{"message":"This request would exceed your organization's rate limit of 50,000 input tokens per minute"}}"#,
    ),
    (
        LimitedBy::InputTokens,
        Api::Anthropic,
        "\nanthropic-ratelimit-tokens-remaining: 0\nanthropic-ratelimit-input-tokens-remaining: 0",
        "{}",
    ),
    (
        LimitedBy::InputTokens,
        OPENAI,
        "\nx-ratelimit-limit-tokens-prompt: 9\nx-ratelimit-remaining-tokens-prompt: 0",
        "{}",
    ),
    (
        LimitedBy::InputTokens,
        Api::Google,
        "",
        r#"{"error":{"details":[{"violations":[{"quotaId":"GenerateContentInputTokensPerModelPerMinute-FreeTier"}]}]}}"#,
    ),
    (
        LimitedBy::OutputTokens,
        Api::Anthropic,
        "",
        r#"{"error":{"message":"rate limit of 8,000 output tokens per minute"}}"#,
    ),
    (
        LimitedBy::OutputTokens,
        OPENAI,
        "\nx-ratelimit-limit-tokens-generated: 9\nx-ratelimit-remaining-tokens-generated: 0",
        "{}",
    ),
    (
        LimitedBy::Concurrency,
        OPENAI,
        "",
        r#"{"error":{"message":"Your account reached max organization concurrency: 1"}}"#,
    ),
    (LimitedBy::Concurrency, OPENAI, "", r#"{"error":{"message":"Too many concurrent requests"}}"#),
    (LimitedBy::Concurrency, OPENAI, "", r#"{"error":{"message":"x","code":"concurrency_limit_exceeded"}}"#),
    (LimitedBy::Concurrency, OPENAI, "", r#"{"error":{"message":"Max parallel request limit reached"}}"#),
    (LimitedBy::Concurrency, OPENAI, "", r#"{"error":{"message":"您的账户并发数过高"}}"#),
    (
        LimitedBy::Day,
        Api::Google,
        "",
        r#"{"error":{"details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}"#,
    ),
    (
        LimitedBy::Day,
        Api::Groq,
        "",
        r#"{"error":{"message":"Rate limit reached on tokens per day (TPD): Limit 8000","type":"tokens"}}"#,
    ),
    (
        LimitedBy::Day,
        Api::Openrouter,
        "",
        r#"{"error":{"code":429,"message":"Rate limit exceeded: free-models-per-day."}}"#,
    ),
    (
        LimitedBy::Day,
        Api::Groq,
        "\nx-ratelimit-limit-requests: 14400\nx-ratelimit-remaining-requests: 0",
        "{}",
    ),
    (
        LimitedBy::Day,
        OPENAI,
        "\nx-ratelimit-limit-requests-day: 14400\nx-ratelimit-remaining-requests-day: 0",
        "{}",
    ),
    (LimitedBy::Day, OPENAI, "\nRateLimit: \"api\";r=0;t=231\nRateLimit-Policy: \"api\";q=500;w=86400", "{}"),
    (LimitedBy::Day, OPENAI, "", r#"{"error":{"message":"You have reached your daily limit"}}"#),
    (LimitedBy::Unknown, OPENAI, "", "{}"),
    (LimitedBy::Unknown, OPENAI, "", r#"{"error":{"message":"Too many requests"}}"#),
    (LimitedBy::Unknown, OPENAI, "", "<html>429</html>"),
    (LimitedBy::Unknown, OPENAI, "\nx-ratelimit-limit-requests: 60\nx-ratelimit-remaining-requests: 5", "{}"),
    (
        LimitedBy::Unknown,
        OPENAI,
        "\nx-ratelimit-limit-tokens: 0\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-limit-requests: 40\nx-ratelimit-remaining-requests: 39",
        "{}",
    ),
    (LimitedBy::Unknown, OPENAI, "", r#"{"error":{"message":"Slow down for a minute"}}"#),
];

#[test]
fn limited_by_names_the_limit() {
    let server = RawServer::start();
    for &(expected, api, head, body) in LIMITS {
        let head = format!("HTTP/1.1 429 X{head}\n\n{body}");
        server.play(on_the_wire(&head));
        let outcome = run(probe(provider(api, &format!("http://{}", server.address)), Check::Chat));
        assert_eq!(outcome.reason, Reason::RateLimited, "{head}");
        assert_eq!(outcome.limited_by, Some(expected), "{head}");
    }
    // Only a rate-limited result has a limit.
    let overloaded = (OPENAI, "429 X", r#"{"error":{"message":"overloaded, 60 requests per minute"}}"#);
    assert_eq!(play(&server, Check::Chat, &overloaded).limited_by, None);
}

#[test]
fn refusal_of_a_proxy_is_named_as_such() {
    let server = RawServer::start();
    for (head, body, detail) in [
        ("401 X\nWWW-Authenticate: Basic realm=\"x\"", "<html>401</html>", "a proxy answers (Basic)"),
        ("401 X\nwww-authenticate: basic", "", "a proxy answers (Basic)"),
        ("401 X\nWWW-Authenticate: Basic realm=x", r#"{"error":{"message":"x"}}"#, "a proxy answers (Basic)"),
        ("401 X", "<html>401</html>", "an HTML page"),
        ("401 X", "", "an empty body"),
        ("403 X", "<html>403</html>", "an HTML page"),
        ("403 X", "Forbidden", "a plain text"),
        ("403 X\ncf-mitigated: challenge", "<!DOCTYPE html><title>Just a moment...</title>", "an HTML page"),
        ("502 X", "", "an empty body in place of the API's error"),
        ("504 X", "upstream timed out", "a plain text"),
        ("500 X", "<html>", "an HTML page"),
    ] {
        let outcome = play(&server, Check::Chat, &(OPENAI, head, body));
        assert!(detail_of(&outcome).contains(detail), "{head} {body}: {}", detail_of(&outcome));
        for claim in ["key is known", "request ID", "request id"] {
            assert!(!outcome.hint.contains(claim), "{head} {body}: {}", outcome.hint);
        }
    }
    for (head, body) in [
        ("401 X", r#"{"error":{"message":"Incorrect API key provided"}}"#),
        ("401 X\nWWW-Authenticate: Bearer", r#"{"error":{"message":"x"}}"#),
        ("403 X", r#"{"error":{"message":"x"}}"#),
        ("500 X", r#"{"error":{"message":"x"}}"#),
    ] {
        let outcome = play(&server, Check::Chat, &(OPENAI, head, body));
        assert!(!detail_of(&outcome).contains("proxy"), "{head} {body}: {}", detail_of(&outcome));
    }
}

#[test]
fn refusal_of_the_connection_is_named_as_such() {
    let server = RawServer::start();
    let tls = ("a port that speaks TLS", "write https:// in base_url");
    let certificate = ("client certificate", "presents the client certificate");
    for (head, body, (detail, hint)) in [
        ("400 X", "<html><center>The plain HTTP request was sent to HTTPS port</center></html>", tls),
        ("400 X", "Client sent an HTTP request to an HTTPS server.\n", tls),
        ("400 X", "<p>You're speaking plain HTTP to an SSL-enabled server port.</p>", tls),
        ("400 X", "<html><center>No required SSL certificate was sent</center></html>", certificate),
    ] {
        let outcome = play(&server, Check::Chat, &(OPENAI, head, body));
        assert_eq!((outcome.reason, outcome.fault), (Reason::InvalidRequest, Fault::Caller), "{body}");
        assert!(detail_of(&outcome).contains(detail), "{body}: {}", detail_of(&outcome));
        assert!(outcome.hint.contains(hint), "{body}: {}", outcome.hint);
    }
}
