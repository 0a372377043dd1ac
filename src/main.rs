//! Turns arguments into a command and a command into an exit status.

use std::{
    env,
    io::{self, IsTerminal, Write},
    path::Path,
    process,
    time::SystemTime,
};

use clap::{CommandFactory, Parser};
use langmart_prober::{
    cli::{Cli, Command, CsvTable, Page, ReportArguments},
    commands::{self, EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, Form, ReportFormat},
    config::Environment,
    daemon::{self, Fatal, Source},
};

fn main() {
    let command = Cli::parse().command;
    let status = run(command).unwrap_or_else(|error| {
        // A reader that closed the pipe, such as `head`, is not an error.
        if error.kind() != io::ErrorKind::BrokenPipe {
            print_error(&format!("langmart-prober: {error}"));
        }
        EXIT_FAILED
    });
    // Returning from main would wait for threads that may be blocked in the kernel.
    process::exit(status.into());
}

fn run(command: Command) -> io::Result<u8> {
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr());
    match command {
        Command::Run { config, log_level } => {
            Ok(match daemon::run(&Source::File { path: config.path, log_level }, |_| ()) {
                Ok(()) => EXIT_OK,
                Err(fatal) => {
                    fatal.print(err);
                    if matches!(fatal, Fatal::Configuration(_)) { EXIT_CONFIGURATION } else { EXIT_FAILED }
                }
            })
        }
        Command::CheckConfig { config, no_secrets, strict, json, quiet } => {
            let form = match (json, quiet) {
                (true, _) => Form::Json,
                (false, true) => Form::Errors,
                (false, false) => Form::Table,
            };
            let request = commands::CheckConfig { path: &config.path, no_secrets, strict, form };
            Ok(commands::check_config(&request, &Environment::from_process(), out, err))
        }
        Command::Once { config, json, verbose, probes } => {
            let terminal = io::stderr().is_terminal();
            let request = commands::Once { path: &config.path, json, verbose, probes: &probes, terminal };
            commands::once(&request, out, err)
        }
        Command::Doctor { config, json, generate, providers } => {
            let (path, providers, colour) = (&*config.path, &*providers, colour());
            let request = commands::Doctor { path, json, generate, providers, colour };
            commands::doctor(&request, &Environment::from_process(), out, err)
        }
        Command::Report(arguments) => report(&arguments, out, err),
        Command::Explain { reason } => commands::explain(&reason, out, err),
        Command::Init { providers } => commands::init(&providers, out, err),
        Command::Simulate { listen, tls_listen, ca_file, scenario } => {
            let request = commands::Simulate {
                listen,
                tls_listen,
                ca_file: ca_file.as_deref(),
                scenario: scenario.as_deref(),
            };
            commands::simulate(&request, out, err)
        }
        Command::Demo { listen } => commands::demo(listen, out, err),
        Command::Completions { shell } => commands::completions(shell, Cli::command(), out),
        Command::Man { page: Page::Program } => commands::manual(Cli::command(), out),
        Command::Man { page: Page::Configuration } => commands::configuration_manual(out),
    }
}

fn report(arguments: &ReportArguments, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let format = match arguments.csv {
        Some(CsvTable::Outages) => ReportFormat::OutagesCsv,
        Some(CsvTable::Availability) => ReportFormat::AvailabilityCsv,
        None if arguments.json => ReportFormat::Json,
        None => ReportFormat::Markdown,
    };
    let request = commands::Report {
        path: &arguments.config.path,
        incidents: arguments.incidents,
        since: arguments.since.as_deref(),
        probe: arguments.probe.as_deref(),
        provider: arguments.provider.as_deref(),
        format,
        account: arguments.account,
        vantages: &arguments.vantage,
        terminal: io::stderr().is_terminal(),
        now: SystemTime::now(),
        packaged_logs: Path::new(commands::PACKAGED_LOGS),
    };
    commands::report(&request, &Environment::from_process(), out, err)
}

/// Returns whether standard output is a terminal that may be coloured (no-color.org).
fn colour() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints to standard error and ignores write errors, because a panic would change the exit status,
/// which systemd evaluates.
fn print_error(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}
