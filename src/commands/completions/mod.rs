//! `completions`: the completion script of a shell, from the types of the command line, with the
//! names of probes and providers from the configuration.

use std::io::{self, Write};

use clap::{Command, builder::PossibleValuesParser};
use clap_complete::Shell;

use super::EXIT_OK;
use crate::outcome::{Api, Reason};

/// Functions that complete names, for each shell.
const BASH: &str = include_str!("names.bash");
const ZSH: &str = include_str!("names.zsh");
const FISH: &str = include_str!("names.fish");

/// Start of the last statement of the script for zsh, which needs the functions before it.
const ZSH_END: &str = "if [ \"$funcstack[1]\" = ";

/// Prints the completion script of `command` for `shell`. Returns the exit status.
pub fn completions(shell: Shell, command: Command, out: &mut impl Write) -> io::Result<u8> {
    let mut command = with_values(command);
    let name = command.get_name().to_owned();
    // Rendered into memory first, because clap_complete panics on write errors.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match shell {
        // clap_complete 4.6 takes the hyphen of the name for a subcommand in half of its labels.
        Shell::Bash => script.replace("langmart__subcmd__prober", "langmart__prober") + BASH,
        Shell::Zsh => with_zsh_names(&script),
        Shell::Fish => format!("{script}{FISH}"),
        _ => script.into_owned(),
    };
    out.write_all(script.as_bytes())?;
    out.flush()?;
    Ok(EXIT_OK)
}

/// Returns the command with the values of arguments that the types of the command line leave open.
fn with_values(command: Command) -> Command {
    let reasons = PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()));
    let apis = PossibleValuesParser::new(Api::ALL.iter().map(|api| api.name()));
    command
        .mut_subcommand("explain", |explain| explain.mut_arg("reason", |arg| arg.value_parser(reasons)))
        .mut_subcommand("init", |init| init.mut_arg("providers", |arg| arg.value_parser(apis)))
}

/// Returns the script for zsh, in which the arguments that are names call the functions.
fn with_zsh_names(script: &str) -> String {
    let mut in_doctor = false;
    let line = |line: &str| {
        if line.starts_with('(') {
            in_doctor = line == "(doctor)";
        }
        let is_probe = line.contains("::probes -- ") || line.contains("--probe=[");
        let is_provider = line.contains("::providers -- ") && in_doctor || line.contains("--provider=[");
        let function = match (is_probe, is_provider) {
            (true, _) => "_langmart-prober_probes",
            (_, true) => "_langmart-prober_providers",
            _ => "_default",
        };
        line.replace(":_default'", &format!(":{function}'")) + "\n"
    };
    let script: String = script.lines().map(line).collect();
    script.replace(ZSH_END, &format!("{ZSH}{ZSH_END}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_write_error_is_returned() {
        let command = Command::new("langmart-prober")
            .subcommand(Command::new("explain").arg(clap::Arg::new("reason")))
            .subcommand(Command::new("init").arg(clap::Arg::new("providers")));
        let mut full = &mut [0_u8; 9][..];
        let written = completions(Shell::Bash, command, &mut full);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
