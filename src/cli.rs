//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Synthetic monitoring for LangMart and LLM providers
#[derive(Debug, Parser)]
#[command(name = "langmart-prober", version, max_term_width = 100)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the prober daemon
    ///
    /// Sends the configured probes on schedule and serves /metrics. Exits with 0 after SIGTERM or
    /// SIGINT, 1 if it cannot start or has to end, 78 if the configuration is invalid. SIGHUP
    /// reloads the configuration.
    Run {
        /// Path to the configuration file
        #[command(flatten)]
        config: ConfigFile,
        /// Level of the log, instead of log.level of the configuration
        #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
        log_level: Option<String>,
    },
    /// Check the configuration and print the probes that `run` would schedule
    ///
    /// Exits with 0, or 78 if the configuration is invalid. A key that this shell cannot read is a
    /// warning. As root, also checks what the service's user and sandbox can read, write and bind.
    CheckConfig {
        /// Path to the configuration file
        #[command(flatten)]
        config: ConfigFile,
        /// Do not read any key
        #[arg(long, conflicts_with = "strict")]
        no_secrets: bool,
        /// Fail if this user cannot read a key file, write to a directory or bind the address
        #[arg(long)]
        strict: bool,
        /// Print one JSON object instead of the table
        #[arg(long)]
        json: bool,
        /// Print errors only
        #[arg(long, conflicts_with = "json")]
        quiet: bool,
    },
    /// Run probes once and print a table of the results
    ///
    /// Exits with 0 if all succeeded, 1 if one failed or there is no probe, 78 if the configuration
    /// is invalid. The runs consume tokens like scheduled ones, but do not count towards the
    /// budget.
    Once {
        /// Path to the configuration file
        #[command(flatten)]
        config: ConfigFile,
        /// Print one JSON record per line instead of the table
        #[arg(long)]
        json: bool,
        /// Also print request and response to standard error; keys are masked; up to 64 KiB per run
        #[arg(long)]
        verbose: bool,
        /// Names of the probes to run; all by default
        #[arg(value_name = "PROBE")]
        probes: Vec<String>,
    },
    /// Diagnose connection problems of each provider and suggest remedies
    ///
    /// Follows LangMart's guide: configuration, proxy, DNS, TCP, TLS, health, key, limits, status.
    /// Exits with 0 if everything works, 1 if something failed, 78 if the configuration is invalid.
    /// Consumes no tokens without --generate.
    Doctor {
        /// Path to the configuration file
        #[command(flatten)]
        config: ConfigFile,
        /// Print one JSON object per provider instead of the lines
        #[arg(long)]
        json: bool,
        /// Also send the configured completions, which consumes tokens outside the budget
        #[arg(long)]
        generate: bool,
        /// Names of the providers to diagnose; all by default
        #[arg(value_name = "PROVIDER")]
        providers: Vec<String>,
    },
    /// Print a failure report for a support ticket, or a ledger of outages
    ///
    /// Reads the daemon's records. Lists each failure with its request, state, times, codes,
    /// durations and request IDs, and the success rate of each probe, as Markdown. With
    /// --incidents, lists each outage with start, end, fault, requests and what the status page
    /// reported, and the availability of each provider and month. Exits with 0, 1 if there are no
    /// records, 78 if the configuration is invalid.
    Report(ReportArguments),
    /// Print what a reason means, who can be responsible, and what to do
    ///
    /// Exits with 0, or 2 if there is no such reason.
    Explain {
        /// Reason of a failed run, such as timeout
        #[arg(value_name = "REASON")]
        reason: String,
    },
    /// Print a commented starting configuration
    ///
    /// Exits with 0, or 2 if a provider is unknown.
    Init {
        /// Names of the providers, such as openai; an unknown name prints all of them
        #[arg(value_name = "PROVIDER", default_value = "langmart")]
        providers: Vec<String>,
    },
    /// Run the simulator of LangMart and the providers on loopback, with scripted faults
    Simulate {
        /// Address to listen on for HTTP
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10430", value_parser = address)]
        listen: SocketAddr,
        /// Address to listen on for HTTPS, with a certificate of the simulator's own CA
        #[arg(long, value_name = "ADDRESS", requires = "ca_file", value_parser = address)]
        tls_listen: Option<SocketAddr>,
        /// File to write the CA certificate to, for `ca_file` in a configuration
        #[arg(long, value_name = "FILE", requires = "tls_listen")]
        ca_file: Option<PathBuf>,
        /// Path to the scenario file: the faults to simulate, as TOML
        #[arg(long, value_name = "FILE")]
        scenario: Option<PathBuf>,
    },
    /// Run the simulator and the daemon in one process: no key, internet or file needed
    Demo {
        /// Address to serve /metrics on
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10429", value_parser = address)]
        listen: SocketAddr,
    },
    /// Print the completion script of a shell
    Completions {
        /// Name of the shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print a manual page as troff: `langmart-prober man | man -l -`
    Man {
        /// Page to print: of the program or of its configuration
        #[arg(value_name = "PAGE", value_enum, default_value_t = Page::Program)]
        page: Page,
    },
}

/// A manual page.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Page {
    /// langmart-prober(1)
    #[value(name = "langmart-prober")]
    Program,
    /// langmart-prober.toml(5)
    #[value(name = "langmart-prober.toml")]
    Configuration,
}

/// Path to the configuration file.
#[derive(Args, Debug)]
pub struct ConfigFile {
    /// Path to the configuration file
    #[arg(long = "config", value_name = "FILE", default_value = "/etc/langmart-prober/config.toml")]
    pub path: PathBuf,
}

/// Arguments of `report`.
#[derive(Args, Debug)]
pub struct ReportArguments {
    /// Path to the configuration file
    #[command(flatten)]
    pub config: ConfigFile,
    /// Print a ledger of outages instead of the failures
    #[arg(long)]
    pub incidents: bool,
    /// Length of the period up to now, such as 30m or 7d; 1h by default, 31d with --incidents
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Include only the runs of this probe
    #[arg(long, value_name = "NAME")]
    pub probe: Option<String>,
    /// Include only the runs of the probes of this provider
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Print JSON instead of Markdown
    #[arg(long)]
    pub json: bool,
    /// Print a table of the outages, or of the availability, as CSV instead of Markdown
    #[arg(
        long, value_name = "TABLE", value_enum, num_args = 0..=1, require_equals = true,
        default_missing_value = "outages", requires = "incidents", conflicts_with = "json"
    )]
    pub csv: Option<CsvTable>,
    /// Also ask LangMart's account API about the failed requests, with the provider's key
    #[arg(long, conflicts_with = "csv")]
    pub account: bool,
    /// With --incidents: compare with the records of another prober, in a directory on this
    /// machine; may be repeated
    #[arg(long, value_name = "NAME=DIRECTORY", requires = "incidents")]
    pub vantage: Vec<String>,
}

/// A table of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CsvTable {
    /// A line for each outage.
    Outages,
    /// A line for each provider and month.
    Availability,
}

/// Parses an address to listen on.
fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "use an IP address and a port, such as 127.0.0.1:10430")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_without_port_names_the_form() {
        assert_eq!(address("127.0.0.1:1").unwrap().port(), 1);
        for text in ["21430", "localhost:21430", "127.0.0.1", ""] {
            assert!(address(text).unwrap_err().contains("an IP address and a port"), "{text}");
        }
    }
}
