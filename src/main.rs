//! Command line: flags and subcommands to [`switchyard::run`], errors to exit codes.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use switchyard::config::{FileArg, Role, Settings, Source};
use switchyard::{doctor, health, run, telemetry};

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
    /// Look at what a part with these settings needs (ports, network, limits, RabbitMQ, MongoDB) and say what to do
    Doctor {
        /// Which part is to be started here
        #[arg(long, value_enum, default_value_t = Examined::All)]
        part: Examined,
        /// One JSON document in place of lines
        #[arg(long)]
        json: bool,
    },
    /// Sign a token for the admin page, and print the link with it: needs --api-keys and --operator-keys, and asks nobody
    AdminLink {
        /// How long it works, in seconds (60 to 43200)
        #[arg(long, default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(60..=43_200))]
        ttl: u64,
    },
    /// Put load on a media server and measure what comes out
    #[cfg(target_os = "linux")]
    Load(Box<load::Options>),
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Examined {
    All,
    Api,
    Worker,
}

impl From<Examined> for Role {
    fn from(part: Examined) -> Self {
        match part {
            Examined::All => Self::AllInOne,
            Examined::Api => Self::Api,
            Examined::Worker => Self::Worker,
        }
    }
}

const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;
#[cfg(target_os = "linux")]
const EX_SOFTWARE: u8 = 70;
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    use_small_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EX_USAGE } else { 0 };
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let examined = match &cli.part {
        Some(Part::Doctor { json, .. }) => Some(*json),
        _ => None,
    };
    let mut admin_link = None;
    let role = match cli.part {
        None => Role::AllInOne,
        Some(Part::Api) => Role::Api,
        Some(Part::Worker) => Role::Worker,
        Some(Part::Doctor { part, .. }) => part.into(),
        Some(Part::Health { addresses }) => return health_of(&addresses),
        #[cfg(target_os = "linux")]
        Some(Part::Load(options)) => return put_load(&options),
        Some(Part::AdminLink { ttl }) => {
            admin_link = Some(Duration::from_secs(ttl));
            Role::AllInOne
        }
    };
    let settings = match Settings::load(role, cli.source, cli.file.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("switchyard: bad configuration: {error}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    if let Some(ttl) = admin_link {
        return match run::admin_link(&settings, ttl) {
            Ok(link) => {
                println!("{link}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("switchyard: bad configuration: {error}");
                ExitCode::from(EX_CONFIG)
            }
        };
    }
    if let Some(json) = examined {
        return examine(role, &settings, json);
    }
    let telemetry = telemetry::install(&settings);
    match run::run(role, settings, telemetry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("switchyard: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn examine(role: Role, settings: &Settings, json: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("switchyard: {error}");
            return ExitCode::from(EX_UNAVAILABLE);
        }
    };
    let findings = runtime.block_on(doctor::examine(role, settings));
    println!("{}", doctor::render(&findings, json));
    if doctor::is_well(&findings) { ExitCode::SUCCESS } else { ExitCode::from(EX_UNAVAILABLE) }
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

/// Tells the kernel not to back this process with huge pages (2 MiB): wherever an allocator has touched a little of one,
/// all of it would count, which is as much again as everything that is in use.
#[cfg(target_os = "linux")]
fn use_small_pages() {
    const NOTHING: libc::c_ulong = 0;
    // SAFETY: the call takes numbers only. A kernel that does not know it answers with an error, and nothing changes.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1 as libc::c_ulong, NOTHING, NOTHING, NOTHING) };
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
