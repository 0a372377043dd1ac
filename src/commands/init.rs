//! `init`: prints a commented starting configuration.

use std::io::{self, Write};

use super::{EXIT_OK, EXIT_USAGE};
use crate::outcome::{Api, Check};

/// Lines before the providers.
const HEAD: &str = "\
# Configuration of langmart-prober. Every key, with its default: langmart-prober.toml(5).
# Check this file:   langmart-prober check-config --config FILE
# Try it once:       langmart-prober once --config FILE
# Use it, as root:   install it as /etc/langmart-prober/config.toml, then
#                    langmart-prober check-config && systemctl reload langmart-prober
";

/// Prints the configuration for the named providers. Returns the exit status.
pub fn init(providers: &[String], out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let mut apis: Vec<Api> = Vec::new();
    for name in providers {
        let Some(api) = Api::from_name(name) else {
            let names: Vec<_> = Api::ALL.iter().map(|api| api.name()).collect();
            writeln!(err, "{name:?} is not a known provider; the providers are: {}", names.join(", "))?;
            return Ok(EXIT_USAGE);
        };
        if !apis.contains(&api) {
            apis.push(api);
        }
    }
    out.write_all(HEAD.as_bytes())?;
    for api in apis {
        out.write_all(section(api).as_bytes())?;
    }
    out.flush()?;
    Ok(EXIT_OK)
}

/// Returns the section of a provider, and a completion as a comment.
fn section(api: Api) -> String {
    let profile = api.profile();
    let name = api.name();
    let variable = format!("{}_API_KEY", name.to_ascii_uppercase());
    let key_page =
        profile.keys_page.map_or_else(String::new, |page| format!("\n# Keys are created at {page}."));
    let mut checks = vec![Check::Network];
    checks.extend(profile.paths.health.map(|_| Check::Health));
    checks.extend([Check::Auth, Check::Models]);
    checks.extend(profile.paths.balance.map(|_| Check::Balance));
    checks.extend(profile.status_data.map(|_| Check::Status));
    let checks: Vec<_> = checks.iter().map(|check| format!("\"{check}\"")).collect();
    let (display_name, base_url) = (profile.display_name, profile.base_url);
    format!(
        "

# {display_name}
[provider.{name}]
# The key is stored outside of this file, in one of three ways.{key_page}
#
# A file; rotated by systemctl reload langmart-prober. As root, the second command
# reads the key from standard input: paste it, press Enter, then Ctrl-D.
#   install -d -m 0750 -g langmart-prober /etc/langmart-prober/keys
#   install -m 0640 -g langmart-prober /dev/stdin /etc/langmart-prober/keys/{name}
api_key = {{ file = \"/etc/langmart-prober/keys/{name}\" }}
# A systemd credential; rotated by systemctl restart langmart-prober.
#   install -d -m 0700 /etc/credstore
#   install -m 0600 /dev/stdin /etc/credstore/{name}
#   systemctl edit langmart-prober
#     [Service]
#     LoadCredential={name}:/etc/credstore/{name}
#api_key = {{ credential = \"{name}\" }}
# An environment variable: a line {variable}=… without export in
# /etc/default/langmart-prober, mode 0600; rotated by systemctl restart.
#api_key = {{ env = \"{variable}\" }}
checks = [{checks}]
# The address without the paths of requests; set it for a proxy or a region.
#base_url = \"{base_url}\"

# A completion of one word, every five minutes. It consumes tokens. Replace MODEL;
# check = \"stream\" also measures the time to the first token.
#[[probe]]
#name = \"{name}-chat\"
#provider = \"{name}\"
#check = \"chat\"
#model = \"MODEL\"
",
        checks = checks.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, KeySource, Keys, parse};

    fn printed(providers: &[&str]) -> (u8, String, String) {
        let providers: Vec<_> = providers.iter().map(ToString::to_string).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = init(&providers, &mut out, &mut err).unwrap();
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// Loads a text, in which only keys may be missing.
    fn probes(text: &str) -> (usize, Vec<KeySource>) {
        let environment = Environment { variable: &|_| None, system_roots: &|| vec![vec![0].into()] };
        let loaded =
            parse(text, "init", Keys::Reported, &environment).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings.len(), loaded.unread.len(), "{:?}", loaded.warnings);
        (loaded.config.probes.len(), loaded.unread)
    }

    #[test]
    fn configuration_of_every_provider_is_valid() {
        let names: Vec<_> = Api::ALL.iter().map(|api| api.name()).collect();
        let (status, text, err) = printed(&names);
        assert_eq!((status, err.as_str()), (EXIT_OK, ""));
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let (all, sources) = probes(&text);
        assert_eq!(sources.len(), names.len());
        // Each commented line is valid in place of the default.
        let with_chat: Vec<_> = text
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| {
                        rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase() && rest.contains(" = "))
                    })
                    .unwrap_or(line)
            })
            .filter(|line| !line.starts_with("api_key"))
            .collect();
        let with_chat = with_chat.join("\n").replace("model = \"MODEL\"", "model = \"a/b\"");
        for kind in ["credential", "env"] {
            let mut parts = with_chat.split("checks = [");
            let first = parts.next().unwrap().to_owned();
            let text = parts.enumerate().fold(first, |text, (number, part)| {
                format!("{text}api_key = {{ {kind} = \"K{number}\" }}\nchecks = [{part}")
            });
            assert_eq!(probes(&text).0, all + names.len());
        }
    }

    #[test]
    fn providers_are_those_requested() {
        assert!(
            printed(&["langmart"]).1.contains("api_key = { file = \"/etc/langmart-prober/keys/langmart\" }")
        );
        let (_, text, _) = printed(&["groq", "openai", "groq"]);
        assert_eq!(text.matches("\n[provider.").count(), 2, "{text}");
        let (status, out, err) = printed(&["groq", "grok"]);
        assert_eq!((status, out.as_str()), (EXIT_USAGE, ""));
        assert!(err.contains("\"grok\" is not a known provider; the providers are: langmart, "), "{err}");
    }
}
