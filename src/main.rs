//! Command line: flags and subcommands to [`switchyard::run`], errors to exit codes.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use switchyard::config::{FileArg, Role, Settings, Source};
use switchyard::{health, run, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A multi-party WebRTC media server (SFU) that survives the death of any of its processes.
///
/// Without a subcommand everything runs in this one process, on an embedded broker and store, with a demo: open
/// the address that it prints in two browser tabs.
#[derive(Parser)]
#[command(
    name = "switchyard",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 stopped as asked; 64 bad usage; 69 broker, store or port not available; 70 a part failed; \
                  78 bad configuration (found before any port is bound)"
)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    source: Source,
}

#[derive(Subcommand)]
enum Part {
    /// Only the REST API (any number of them): needs --broker, --store and --api-keys
    Api,
    /// Only a media worker (any number of them): needs --broker and --store
    Worker,
    /// Ask a part whether it lives: the first of these addresses at which something listens (for container health checks)
    Health {
        /// The API's address, a worker's admin address
        #[arg(value_name = "IP:PORT", required = true)]
        addresses: Vec<SocketAddr>,
    },
    /// Put load on a media server and measure what comes out
    #[cfg(target_os = "linux")]
    Load(Box<load::Options>),
}

const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;
#[cfg(target_os = "linux")]
const EX_SOFTWARE: u8 = 70;
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EX_USAGE } else { 0 };
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let role = match cli.part {
        None => Role::AllInOne,
        Some(Part::Api) => Role::Api,
        Some(Part::Worker) => Role::Worker,
        Some(Part::Health { addresses }) => return health_of(&addresses),
        #[cfg(target_os = "linux")]
        Some(Part::Load(options)) => return put_load(&options),
    };
    let settings = match Settings::load(role, cli.source, cli.file.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("switchyard: bad configuration: {error}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    let metrics = telemetry::install(&settings);
    match run::run(role, settings, metrics) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchyard: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn health_of(addresses: &[SocketAddr]) -> ExitCode {
    match health::check(addresses) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchyard: {error}");
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

#[cfg(target_os = "linux")]
fn put_load(options: &load::Options) -> ExitCode {
    // Signalling needs one thread; the media has its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(load::run(options)).map(|_| ()),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchyard load: {error}");
            ExitCode::from(EX_SOFTWARE)
        }
    }
}
