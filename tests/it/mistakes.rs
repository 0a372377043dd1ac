//! Mistakes of configuration: each has a message that names its remedy, and the configuration is
//! good once the remedy is followed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use crate::harness::daemon::Place;

/// What the message asks for.
enum Remedy {
    /// Replace a part of the configuration.
    Replace(&'static str, &'static str),
    /// Write the key again.
    WriteKey,
    /// Set a variable in the environment.
    Export(&'static str),
    /// Run the command that the message prints after `run: `.
    Run,
}
use Remedy::{Export, Replace, Run, WriteKey};

/// A mistake.
struct Mistake {
    /// The configuration; `DIR` is the directory of its files.
    text: &'static str,
    /// Content and mode of the file `DIR/key`.
    key: (&'static [u8], u32),
    /// Parts of the message, among them what names the remedy.
    message: &'static [&'static str],
    remedy: Remedy,
}

const GOOD_KEY: (&[u8], u32) = (b"sk-test-0123456789\n", 0o600);

/// Returns a mistake in the text.
const fn text(
    text: &'static str,
    message: &'static [&'static str],
    old: &'static str,
    new: &'static str,
) -> Mistake {
    Mistake { text, key: GOOD_KEY, message, remedy: Replace(old, new) }
}

/// Returns a mistake in the key file.
const fn key(content: &'static [u8], message: &'static [&'static str]) -> Mistake {
    Mistake { text: KEY_FILE, key: (content, 0o600), message, remedy: WriteKey }
}

const KEY_FILE: &str = "[provider.langmart]\napi_key = { file = \"DIR/key\" }\nchecks = [\"auth\"]\n";

/// Returns a mistake in a line that is added to a good chat probe.
macro_rules! chat {
    ($line:literal, $message:expr, $new:literal) => {
        text(
            concat!(
                "[provider.groq]\napi_key = { env = \"SIM_KEY\" }\n[[probe]]\nname = \"p\"\nprovider = \"groq\"\n\
                 check = \"chat\"\nmodel = \"m\"\n",
                $line,
                "\n"
            ),
            $message,
            $line,
            $new,
        )
    };
}

/// Returns a mistake in a line that is added to a good provider without a key.
macro_rules! groq {
    ($line:literal, $message:expr, $new:literal) => {
        text(concat!("[provider.groq]\nchecks = [\"network\"]\n", $line, "\n"), $message, $line, $new)
    };
}

/// Returns a mistake in a line of a section before a good provider.
macro_rules! section {
    ($section:literal, $line:literal, $message:expr, $new:literal) => {
        text(
            concat!($section, "\n", $line, "\n[provider.groq]\nchecks = [\"network\"]\n"),
            $message,
            $line,
            $new,
        )
    };
}

const MISTAKES: &[Mistake] = &[
    // Syntax.
    section!(
        "[server]",
        "listen: 127.0.0.1:10429",
        &["not valid TOML", ":2:"],
        "listen = \"127.0.0.1:10429\""
    ),
    section!(
        "[log]",
        "level = info",
        &["not valid TOML", "string values must be quoted"],
        "level = \"info\""
    ),
    section!(
        "[log]",
        "level = \u{201c}info\u{201d}",
        &["typographic quotes; write straight ones"],
        "level = \"info\""
    ),
    section!(
        "[log]",
        "directory = \"C:\\logs\"",
        &["write paths with slashes"],
        "directory = \"/var/log/x\""
    ),
    section!("[log]", "level = \"info", &["not valid TOML", ":2:"], "level = \"info\""),
    section!(
        "[log]",
        "format = \"text\"\nformat = \"json\"",
        &["duplicate key", "keep one of the two"],
        "format = \"json\""
    ),
    section!("[log]\n[server]", "[log]", &["duplicate key", "keep one of the two"], ""),
    text(
        "[provider.groq]\napi_key = { env = \"SIM_KEY\" }\n[probe]\nname = \"p\"\nprovider = \"groq\"\ncheck = \"models\"\n",
        &["each written under [[probe]]"],
        "[probe]",
        "[[probe]]",
    ),
    // Unknown keys and words.
    groq!("timeot = \"5s\"", &["unknown key", "known keys: api"], ""),
    chat!("intervall = \"1m\"", &["unknown key; did you mean interval?"], "interval = \"2m\""),
    text(
        "[serverr]\n[provider.groq]\nchecks = [\"network\"]\n",
        &["unknown key; did you mean server?"],
        "[serverr]",
        "[server]",
    ),
    section!("[log]", "level = \"inf\"", &["did you mean \"info\"?"], "level = \"info\""),
    section!("[log]", "format = \"jsn\"", &["did you mean \"json\"?"], "format = \"json\""),
    text("[provider.groq]\nchecks = [\"networks\"]\n", &["did you mean \"network\"?"], "networks", "network"),
    text(
        "[provider.corp]\napi = \"opnai\"\nbase_url = \"https://corp.example/v1\"\nchecks = [\"network\"]\n",
        &["did you mean \"openai\"?"],
        "opnai",
        "openai",
    ),
    text(
        "[provider.corp]\nbase_url = \"https://corp.example/v1\"\nchecks = [\"network\"]\n",
        &["provider.corp.api: is missing", "allowed: langmart, openai"],
        "base_url",
        "api = \"openai\"\nbase_url",
    ),
    text(
        "[provider.groq]\napi_key = { env = \"SIM_KEY\" }\n[[probe]]\nname = \"p\"\nprovider = \"grok\"\ncheck = \"auth\"\n",
        &["\"grok\" is not known; did you mean \"groq\"?"],
        "\"grok\"",
        "\"groq\"",
    ),
    text(
        "[provider.groq]\n[[probe]]\nname = \"p\"\nprovider = \"groq\"\ncheck = \"netwrk\"\n",
        &["did you mean \"network\"?"],
        "netwrk",
        "network",
    ),
    // Durations, sizes and numbers.
    chat!(
        "timeout = 90",
        &["90 has no unit; use a string with a unit, such as \"30s\""],
        "timeout = \"90s\""
    ),
    chat!("timeout = \"90\"", &["use whole numbers with a unit: \"500ms\", \"30s\""], "timeout = \"90s\""),
    chat!(
        "timeout = \"1.5s\"",
        &["use whole numbers of smaller units, such as \"1s500ms\""],
        "timeout = \"1s500ms\""
    ),
    chat!("interval = \"5 m\"", &["use whole numbers with a unit"], "interval = \"5m\""),
    chat!("interval = \"10ms\"", &["allowed: \"100ms\" to \"7d\""], "interval = \"2m\""),
    chat!("interval = \"8d\"", &["allowed: \"100ms\" to \"7d\""], "interval = \"7d\""),
    chat!(
        "interval = \"1m\"\ntimeout = \"2m\"",
        &["lower it or raise the interval"],
        "interval = \"2m\"\ntimeout = \"1m\""
    ),
    chat!("max_tokens = \"32\"", &["must be a whole number, not a string"], "max_tokens = 32"),
    chat!("max_tokens = 0", &["allowed: 1 to 32768"], "max_tokens = 1"),
    section!(
        "[log]",
        "max_file_size = \"100\"",
        &["use a whole number with a unit: \"512KiB\", \"100MiB\""],
        "max_file_size = \"100MiB\""
    ),
    section!("[log]", "max_files = 1", &["allowed: 2 to 10000"], "max_files = 2"),
    section!("[log]", "stderr = \"yes\"", &["must be true or false"], "stderr = true"),
    // Keys.
    text(
        "[provider.groq]\napi_key = \"gsk_0123456789abcdef\"\nchecks = [\"auth\"]\n",
        &["a key must not be in this file; write where it is kept: { env = \"VARIABLE\" }"],
        "\"gsk_0123456789abcdef\"",
        "{ env = \"SIM_KEY\" }",
    ),
    text(
        "[provider.groq]\napi_key = { env = \"gsk_0123456789abcdef\" }\nchecks = [\"auth\"]\n",
        &["looks like a key; use the name of a variable"],
        "gsk_0123456789abcdef",
        "SIM_KEY",
    ),
    Mistake {
        text: "[provider.groq]\napi_key = { env = \"UNSET_KEY\" }\nchecks = [\"auth\"]\n",
        key: GOOD_KEY,
        message: &["environment variable UNSET_KEY is not set; export it"],
        remedy: Export("UNSET_KEY"),
    },
    text(
        "[provider.groq]\napi_key = { env = \"SIM_KEY\", file = \"/k\" }\nchecks = [\"auth\"]\n",
        &["must have exactly one of env, file and credential"],
        ", file = \"/k\"",
        "",
    ),
    text(
        "[provider.groq]\napi_key = { file = \"keys/groq\" }\nchecks = [\"auth\"]\n",
        &["must be an absolute path; use one that begins with a slash"],
        "keys/groq",
        "DIR/key",
    ),
    text(
        "[provider.groq]\napi_key = { file = \"DIR/missing\" }\nchecks = [\"auth\"]\n",
        &["DIR/missing cannot be read: No such file", "provide a file that the prober's user can read"],
        "DIR/missing",
        "DIR/key",
    ),
    text(
        "[provider.groq]\nchecks = [\"auth\"]\n",
        &["auth needs a key; set provider.groq.api_key"],
        "checks",
        "api_key = { env = \"SIM_KEY\" }\nchecks",
    ),
    Mistake {
        text: KEY_FILE,
        key: (b"sk-test-0123456789\n", 0o644),
        message: &["run: chmod 600 DIR/key"],
        remedy: Run,
    },
    key(b"", &["the key is empty; store the provider's key in its place"]),
    key(b"\"sk-test\"\n", &["the key is in quotes; store it without them"]),
    key(b"Bearer sk-test\n", &["store the bare key"]),
    key(b"Authorization: Bearer sk-test\n", &["store the bare key"]),
    key(b"sk-one\nsk-two\n", &["the key has more than one line; store only the key"]),
    key(b"LANGMART_API_KEY=sk-test\n", &["the key is a line NAME=value; store only the value after the ="]),
    key(b"export LANGMART_API_KEY=sk-test\n", &["store only the value after the ="]),
    key(b"YOUR_API_KEY\n", &["the key is a placeholder"]),
    key(b"sk-test \n", &["the key is surrounded by white space; remove it"]),
    key(b"sk test\n", &["the key contains white space; copy the complete key again"]),
    key("sk-\u{200b}test\n".as_bytes(), &["copy it again as plain text"]),
    key(b"sk-\xff\n", &["is not UTF-8 text"]),
    groq!("key_header = \"x-key\"", &["there is no api_key to send in it"], ""),
    text(
        "[provider.one]\napi = \"openai\"\nbase_url = \"https://one.example/v1\"\napi_key = { env = \"SIM_KEY\" }\n\
         checks = [\"auth\"]\n[provider.groq]\napi_key = { env = \"SIM_KEY\" }\nchecks = [\"auth\"]\n",
        &["is also the key of provider.one", "valid for one service only"],
        "[provider.groq]\napi_key = { env = \"SIM_KEY\" }",
        "[provider.groq]\napi_key = { file = \"DIR/key\" }",
    ),
    // URLs, headers and proxies.
    groq!(
        "base_url = \"api.groq.com/openai/v1\"",
        &["base_url"],
        "base_url = \"https://api.groq.com/openai/v1\""
    ),
    groq!(
        "base_url = \"https://api.groq.com/openai/v1?a=b\"",
        &["must not have a query or fragment"],
        "base_url = \"https://api.groq.com/openai/v1\""
    ),
    groq!(
        "base_url = \"https://api.groq.com/openai/v1/chat/completions\"",
        &["must end before /chat/completions"],
        "base_url = \"https://api.groq.com/openai/v1\""
    ),
    groq!(
        "base_url = \"https://u:p@api.groq.com/openai/v1\"",
        &["base_url"],
        "base_url = \"https://api.groq.com/openai/v1\""
    ),
    groq!(
        "base_url = \"https://api.groq.com/v1\"",
        &["use \"https://api.groq.com/openai/v1\", or remove base_url"],
        ""
    ),
    text(
        "[provider.openai]\nbase_url = \"https://api.openai.com\"\nchecks = [\"network\"]\n",
        &["warning: ", "use \"https://api.openai.com/v1\""],
        "api.openai.com",
        "api.openai.com/v1",
    ),
    text(
        "[provider.anthropic]\nbase_url = \"https://api.anthropic.com/v1/\"\nchecks = [\"network\"]\n",
        &["warning: ", "use \"https://api.anthropic.com\""],
        "/v1/",
        "",
    ),
    text(
        "[provider.groq]\nbase_url = \"http://groq.example/v1\"\napi_key = { env = \"SIM_KEY\" }\nchecks = [\"auth\"]\n",
        &["use https, or set allow_plain_http = true"],
        "http://",
        "https://",
    ),
    groq!("proxy = \"proxy.example\"", &["use http://HOST:PORT"], "proxy = \"http://proxy.example:3128\""),
    groq!(
        "proxy = \"http://u:p@proxy.example:3128\"",
        &["use proxy_auth"],
        "proxy = \"http://proxy.example:3128\"\nproxy_auth = { env = \"PROXY_AUTH\" }"
    ),
    groq!(
        "proxy = \"none\"\nproxy_auth = { env = \"PROXY_AUTH\" }",
        &["there is no proxy to give it to; set proxy, or remove it"],
        "proxy = \"http://proxy.example:3128\"\nproxy_auth = { env = \"PROXY_AUTH\" }"
    ),
    groq!("headers = { authorization = \"x\" }", &["headers.authorization"], ""),
    groq!("headers = { host = \"x\" }", &["headers.host"], ""),
    groq!("dns_servers = [\"dns.example\"]", &["write \"192.0.2.53\""], "dns_servers = [\"192.0.2.53\"]"),
    groq!(
        "ca_file = \"DIR/key\"",
        &["has no certificate; provide a file of -----BEGIN CERTIFICATE----- blocks"],
        ""
    ),
    groq!("labels = { instance = \"a\" }", &["choose another name"], "labels = { place = \"a\" }"),
    // Checks and probes.
    text(
        "[provider.groq]\nchecks = [\"health\"]\n",
        &["set provider.groq.health_path"],
        "checks",
        "health_path = \"/health\"\nchecks",
    ),
    text(
        "[provider.groq]\nchecks = [\"network\", \"balance\"]\n",
        &["balance is supported by langmart and openrouter, not by groq; remove it"],
        ", \"balance\"",
        "",
    ),
    text(
        "[provider.langmart]\nchecks = [\"status\"]\n",
        &["set provider.langmart.status_url"],
        "checks",
        "status_url = \"https://status.example/api/v2/summary.json\"\nchecks",
    ),
    text(
        "[provider.groq]\nchecks = [\"network\", \"chat\"]\n",
        &["chat needs more than a name; write it as a [[probe]]"],
        ", \"chat\"",
        "",
    ),
    text(
        "[provider.groq]\nchecks = [\"network\", \"network\"]\n",
        &["network is listed twice"],
        ", \"network\"",
        "",
    ),
    text(
        "[provider.groq]\nchecks = \"network\"\n",
        &["must be an array of strings"],
        "\"network\"",
        "[\"network\"]",
    ),
    text(
        "[provider.groq]\nbase_url = \"https://api.groq.com/openai/v1\"\n",
        &["add checks or a [[probe]], or remove it"],
        "[provider.groq]",
        "[provider.groq]\nchecks = [\"network\"]",
    ),
    text(
        "",
        &["no probe is configured; add checks to a provider or a [[probe]]"],
        "",
        "[provider.groq]\nchecks = [\"network\"]\n",
    ),
    chat!("path = \"/x\"", &["path: belongs to http, not to chat; remove it"], ""),
    chat!(
        "prompt = \"a\"\nprompt_words = 50",
        &["cannot be combined with prompt; remove one of them"],
        "prompt_words = 50"
    ),
    chat!("models = [\"a\"]", &["cannot be combined with model; remove one of them"], ""),
    chat!("stall_timeout = \"1s\"", &["stall_timeout: belongs to stream"], ""),
    chat!("expect = { answer_regex = \"(\" }", &["answer_regex"], "expect = { answer_regex = \"ok\" }"),
    chat!(
        "retires = \"31.12.2026\"",
        &["write the model's shutdown date as \"2026-12-11\""],
        "retires = \"2026-12-31\""
    ),
    chat!(
        "price = { input_usd_per_mtok = 1 }",
        &["output_usd_per_mtok", "set the price of a million tokens"],
        "price = { input_usd_per_mtok = 1, output_usd_per_mtok = 2 }"
    ),
    chat!("slow_after = \"2m\"", &["has no effect: it is not below the timeout"], "slow_after = \"10s\""),
    text(
        "[provider.groq]\napi_key = { env = \"SIM_KEY\" }\n[[probe]]\nname = \"p\"\nprovider = \"groq\"\ncheck = \"chat\"\n",
        &["model is missing"],
        "check = \"chat\"",
        "check = \"chat\"\nmodel = \"m\"",
    ),
    text(
        "[provider.groq]\n[[probe]]\nprovider = \"groq\"\ncheck = \"network\"\n",
        &["name is missing"],
        "provider = \"groq\"",
        "name = \"p\"\nprovider = \"groq\"",
    ),
    text(
        "[provider.groq]\n[[probe]]\nname = \"My Probe\"\nprovider = \"groq\"\ncheck = \"network\"\n",
        &["must be 1 to 64 characters of a-z, 0-9, dot, underscore and hyphen"],
        "My Probe",
        "my-probe",
    ),
    text(
        "[provider.groq]\nchecks = [\"network\"]\n[[probe]]\nname = \"groq-network\"\nprovider = \"groq\"\ncheck = \"network\"\n",
        &["names must be unique, generated ones included"],
        "\"groq-network\"",
        "\"groq-network-2\"",
    ),
    text(
        "[provider.groq]\napi_key = { env = \"SIM_KEY\" }\n[[probe]]\nname = \"p\"\nprovider = \"groq\"\ncheck = \"chat\"\nmodel = \"openai/*\"\n",
        &["warning: ", "list the models: models = ["],
        "model = \"openai/*\"",
        "models = [\"openai/a\", \"openai/b\"]",
    ),
    text(
        "[provider.langmart]\napi_key = { env = \"SIM_KEY\" }\n[[probe]]\nname = \"p\"\nprovider = \"langmart\"\ncheck = \"chat\"\nmodel = \"gpt-4o-mini\"\n",
        &["warning: ", "named as in \"openai/gpt-4o-mini\""],
        "\"gpt-4o-mini\"",
        "\"openai/gpt-4o-mini\"",
    ),
    text(
        "[provider.openai]\napi_key = { env = \"SIM_KEY\" }\n[[probe]]\nname = \"p\"\nprovider = \"openai\"\ncheck = \"chat\"\nmodel = \"gpt-5\"\nmax_tokens = 32\n",
        &["remove it, or allow 1024 or more"],
        "max_tokens = 32",
        "max_tokens = 1024",
    ),
    text(
        "[provider.groq]\n[[probe]]\nname = \"p\"\nprovider = \"groq\"\ncheck = \"http\"\npath = \"status\"\n",
        &["path"],
        "\"status\"",
        "\"/status\"",
    ),
    text(
        "[provider.groq]\nchecks = [\"network\"]\n[[pool]]\nname = \"all\"\nmembers = [{ probe = \"groq-netwrk\" }]\n",
        &["did you mean \"groq-network\"?"],
        "groq-netwrk",
        "groq-network",
    ),
    text(
        "[provider.groq]\nchecks = [\"network\"]\n[[pool]]\nname = \"all\"\nmembers = []\n",
        &["must have at least one probe: [{ probe = \"NAME\", weight = 2 }, …]"],
        "[]",
        "[{ probe = \"groq-network\", weight = 2 }]",
    ),
    text(
        "[budget]\ndaily_cost_usd = 1.0\n[provider.groq]\napi_key = { env = \"SIM_KEY\" }\n[[probe]]\nname = \"p\"\n\
         provider = \"groq\"\ncheck = \"chat\"\nmodel = \"m\"\n",
        &["requires a price for every chat and stream probe", "add price = { input_usd_per_mtok = …"],
        "model = \"m\"",
        "model = \"m\"\nprice = { input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.1 }",
    ),
    text(
        "[provider.groq]\nrequests_per_minute = 1\napi_key = { env = \"SIM_KEY\" }\nchecks = [\"auth\", \"models\"]\n",
        &["raise the limit to 2 or more, or raise the intervals"],
        "requests_per_minute = 1",
        "requests_per_minute = 2",
    ),
    section!(
        "[shard]",
        "index = 0",
        &["total", "is missing; set total to the number of daemons"],
        "index = 0\ntotal = 1"
    ),
    // The listener and the log.
    section!(
        "[server]",
        "listen = \"localhost:10429\"",
        &["use one such as \"127.0.0.1:10429\""],
        "listen = \"127.0.0.1:10429\""
    ),
    section!(
        "[server]",
        "listen = \":10429\"",
        &["use one such as \"127.0.0.1:10429\""],
        "listen = \"127.0.0.1:10429\""
    ),
    section!(
        "[server]",
        "listen = \"0.0.0.0:10429\"",
        &["listen on 127.0.0.1, set server.basic_auth, or set server.allow_unauthenticated = true"],
        "listen = \"0.0.0.0:10429\"\nallow_unauthenticated = true"
    ),
    section!(
        "[server]",
        "basic_auth = { alice = \"wonderland\" }",
        &["must be a bcrypt hash", "htpasswd -nBC 10 USER"],
        "basic_auth = { alice = \"$2y$10$ilw2DDaAotOFnLjBDKD31uyjQ2JYK4CUEme.wS2r6PytKIWfdB27S\" }"
    ),
    section!(
        "[server]",
        "basic_auth = {}",
        &["has no user; use { USER = \"BCRYPT HASH\" }, or remove it"],
        ""
    ),
    section!(
        "[server]",
        "hostnames = [\"https://prober.example\"]",
        &["omit scheme and port, as in \"prober.example\""],
        "hostnames = [\"prober.example\"]"
    ),
    section!(
        "[server]",
        "tls = { cert_file = \"/nonexistent\", key_file = \"/nonexistent\" }",
        &["/nonexistent cannot be read", "provide the certificate and its chain as PEM"],
        ""
    ),
    section!(
        "[log]",
        "directory = \"logs\"",
        &["is not an absolute path; use one that begins with a slash"],
        "directory = \"/var/log/x\""
    ),
    section!(
        "[log]",
        "level = \"info,hyper\"",
        &["tracing filter such as \"info,hyper=warn\""],
        "level = \"info,hyper=warn\""
    ),
    // Included files.
    text(
        "include = [\"DIR/missing.toml\"]\n[provider.groq]\nchecks = [\"network\"]\n",
        &["missing.toml cannot be read: No such file"],
        "include = [\"DIR/missing.toml\"]",
        "",
    ),
    text(
        "include = [\"again.toml\"]\n[provider.groq]\nchecks = [\"network\"]\n",
        &["duplicate key", "keep one of the two, the other is in", "config.toml:2"],
        "[provider.groq]\nchecks = [\"network\"]\n",
        "",
    ),
    text(
        "include = [\"loose.toml\"]\n[provider.groq]\nchecks = [\"network\"]\n",
        &["loose.toml:1", "an included file consists of sections"],
        "loose.toml",
        "*.none",
    ),
];

/// Files that the configurations include.
const INCLUDED: [(&str, &str); 2] = [
    ("again.toml", "[provider.groq]\nchecks = [\"network\"]\n"),
    ("loose.toml", "listen = \"127.0.0.1:1\"\n"),
];

/// A mistake in its directory.
struct Bench {
    place: Place,
    directory: String,
}

impl Bench {
    fn new(mistake: &Mistake) -> Self {
        let place = Place::new("");
        let directory = place.path("").display().to_string().trim_end_matches('/').to_owned();
        let bench = Self { place, directory };
        for (name, text) in INCLUDED {
            bench.place.write(name, text);
        }
        bench.write_key(mistake.key);
        bench
    }

    fn write_key(&self, (content, mode): (&[u8], u32)) {
        fs::write(self.place.path("key"), content).unwrap();
        fs::set_permissions(self.place.path("key"), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Checks a configuration. Returns the exit status and the messages.
    fn check(&self, text: &str, variables: &[&str]) -> (Option<i32>, String) {
        self.place.write("config.toml", &text.replace("DIR", &self.directory));
        let mut command = self.place.command("check-config");
        command.env("PROXY_AUTH", "user:password");
        command.envs(variables.iter().map(|name| (name, "sk-test-0123456789")));
        let Output { status, stderr, .. } = command.output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap().replace(&self.directory, "DIR"))
    }

    /// Follows the remedy. Returns the messages of the corrected configuration.
    fn correct(&self, mistake: &Mistake, message: &str) -> (Option<i32>, String) {
        match mistake.remedy {
            Replace("", new) => self.check(new, &[]),
            Replace(old, new) => {
                assert!(mistake.text.contains(old), "{}", mistake.text);
                self.check(&mistake.text.replacen(old, new, 1), &[])
            }
            Export(name) => self.check(mistake.text, &[name]),
            WriteKey => {
                self.write_key(GOOD_KEY);
                self.check(mistake.text, &[])
            }
            Run => {
                let (_, command) = message.split_once("run: ").unwrap();
                let command = command.lines().next().unwrap().replace("DIR", &self.directory);
                assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
                self.check(mistake.text, &[])
            }
        }
    }
}

#[test]
fn every_mistake_is_named_and_its_remedy_works() {
    let mut failures = Vec::new();
    for mistake in MISTAKES {
        let bench = Bench::new(mistake);
        let (status, message) = bench.check(mistake.text, &[]);
        let expected = if message.starts_with("warning: ") { Some(0) } else { Some(78) };
        let is_named = mistake.message.iter().all(|part| message.contains(part)) && !message.is_empty();
        let corrected = bench.correct(mistake, &message);
        if status != expected || !is_named || corrected != (Some(0), String::new()) {
            let Mistake { text, message: wanted, .. } = mistake;
            failures.push(format!(
                "{text}\n{status:?}: {message}wanted: {wanted:?}\ncorrected: {corrected:?}\n\n"
            ));
        }
    }
    let count = MISTAKES.len();
    println!("mistakes named and corrected: {} of {count}", count - failures.len());
    assert!(failures.is_empty() && count >= 67, "{}", failures.concat());
}
