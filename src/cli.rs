//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Tells, before the users do, whether LangMart and the LLM providers behind it work, how fast, and whose fault it is
/// when they don't.
#[derive(Debug, Parser)]
#[command(name = "langmart-prober", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Probe for ever and serve /metrics: the daemon
    ///
    /// Ends with 0 after SIGTERM or SIGINT, 1 where it could not start or had to end, 78 on a bad configuration. SIGHUP reads the
    /// configuration again.
    Run(ConfigFile),
    /// Load the configuration as `run` does, and print the probes that it would schedule
    ///
    /// Ends with 0, or 78 on a bad configuration. A key that is not reachable from this shell is a warning.
    CheckConfig {
        /// Which configuration
        #[command(flatten)]
        config: ConfigFile,
        /// Read no key at all
        #[arg(long)]
        no_secrets: bool,
    },
    /// Run probes once and print a table of what they found
    ///
    /// Ends with 0 if all succeeded, 1 if one failed, 78 on a bad configuration. It spends tokens as the probes do, outside
    /// the budget.
    Once {
        /// Which configuration
        #[command(flatten)]
        config: ConfigFile,
        /// One result record a line, as JSON, in place of the table
        #[arg(long)]
        json: bool,
        /// Also show request and response on standard error, for a person's eyes: keys are masked, up to 64 KiB each run
        #[arg(long)]
        verbose: bool,
        /// Names of probes; all if none is given
        #[arg(value_name = "PROBE")]
        probes: Vec<String>,
    },
    /// Look for the cause of connection problems, provider by provider, and say what to do
    ///
    /// Takes the steps of LangMart's guide: configuration, proxy, DNS, TCP, TLS, health, key, limits, status. Ends with
    /// 0 if all is well, 1 if something failed, 78 on a bad configuration. It spends no tokens
    /// without --generate.
    Doctor {
        /// Which configuration
        #[command(flatten)]
        config: ConfigFile,
        /// One JSON object a provider, in place of the lines
        #[arg(long)]
        json: bool,
        /// Send the configured completions too, which spends tokens outside the budget
        #[arg(long)]
        generate: bool,
        /// Names of providers; all if none is given
        #[arg(value_name = "PROVIDER")]
        providers: Vec<String>,
    },
    /// Print what a support ticket needs, from the records of the daemon's runs
    ///
    /// By failure: times, codes, durations, request ids, what to do; and the share of successes of each probe. As
    /// Markdown. Ends with 0, 1 if there is no record, 78 on a bad configuration.
    Report {
        /// Which configuration
        #[command(flatten)]
        config: ConfigFile,
        /// How far back, as the configuration writes durations
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        since: String,
        /// Only the runs of this probe
        #[arg(long, value_name = "NAME")]
        probe: Option<String>,
        /// JSON in place of Markdown
        #[arg(long)]
        json: bool,
    },
    /// Simulate LangMart and the providers on loopback, with scripted faults
    Simulate {
        /// Where to listen for HTTP
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10430")]
        listen: SocketAddr,
        /// Where to listen for HTTPS, with a certificate of a CA of its own
        #[arg(long, value_name = "ADDRESS", requires = "ca_file")]
        tls_listen: Option<SocketAddr>,
        /// Where to write that CA's certificate, for `ca_file` in a configuration
        #[arg(long, value_name = "FILE", requires = "tls_listen")]
        ca_file: Option<PathBuf>,
        /// The faults to play, as TOML
        #[arg(long, value_name = "FILE")]
        scenario: Option<PathBuf>,
    },
    /// Simulate and probe in one process: no key, no internet, no file needed
    Demo {
        /// Where to serve /metrics
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10429")]
        listen: SocketAddr,
    },
    /// Print the completion of this command line for a shell
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print a manual page, as troff: `langmart-prober man | man -l -`
    Man {
        /// Which page: the program's, or that of its configuration
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

/// Which configuration.
#[derive(Args, Debug)]
pub struct ConfigFile {
    /// The configuration
    #[arg(long = "config", value_name = "FILE", default_value = "/etc/langmart-prober/config.toml")]
    pub path: PathBuf,
}
