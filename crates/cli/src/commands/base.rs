//! `bowline base`: the base server that devices meet at.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bowline_base::{Server, Shutdown};
use bowline_key::KeyFile;

use crate::{
    config::Config,
    logs,
    notes::note,
    output::{Output, ReaderGone},
    places,
    signals::{Reload, Stop},
};

/// Run a base server: devices register here, find each other, and are relayed until they reach each other directly
#[derive(Debug, clap::Args)]
#[command(after_help = "\
When it is ready, it prints a line `base <base ID>@<address>:<port>` for every address it listens on. Devices are \
given <base ID>@<its host name> with --base. SIGTERM or Ctrl-C tell the devices to leave before it ends; a second one ends it at once.

Devices in networks that let nothing out but the web get through where it listens on port 443 as well: they try that by \
themselves.

Examples:
  bowline base
  bowline base --listen 0.0.0.0:4477 --listen [::]:4477 --state /var/lib/bowline
  bowline base --listen 0.0.0.0:4477 --listen 0.0.0.0:443
  bowline base --cluster nats://10.0.0.1:4222 --cluster-creds /etc/bowline/nats.creds
  bowline base --fast-path eth0
  bowline base --admin

SIGHUP has the file with the allowed devices (`allow_file`) read again; a change of it is noticed by itself, too.")]
pub(crate) struct Args {
    /// Where to listen, TCP and UDP; may be repeated [default: `listen` in the configuration file]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// The folder of the base's key [default: `state` in the configuration file, or /var/lib/bowline for root and
    /// bowline in the user's state folder for others]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Serve metrics, and a page for people, over HTTP at this address [default: `admin` in the configuration file, or
    /// nowhere; without a value: 127.0.0.1:4480]
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:4480")]
    admin: Option<SocketAddr>,
    /// Have the Linux kernel itself forward messages between devices on UDP that come in by this interface; takes root; may be
    /// repeated [default: `fast_path` in the configuration file, or none]
    #[arg(long, value_name = "INTERFACE")]
    fast_path: Vec<String>,
    /// Join the bases of a cluster: address of a NATS server with JetStream, nats://HOST:4222 or tls://HOST:4222; may be
    /// repeated [default: `servers` of [base.cluster] in the configuration file]
    #[arg(long, value_name = "URL")]
    cluster: Vec<String>,
    /// The credentials for NATS, a .creds file
    #[arg(long, value_name = "FILE")]
    cluster_creds: Option<PathBuf>,
    /// Who vouches for the NATS servers, certificates in PEM; makes TLS a must
    #[arg(long, value_name = "FILE")]
    cluster_ca: Option<PathBuf>,
    /// How long devices have to leave when this base is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    drain: u16,
}

pub(crate) async fn run(args: Args, config: Config) -> anyhow::Result<()> {
    let mut config = config.base;
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    config.admin = args.admin.or(config.admin);
    if !args.fast_path.is_empty() {
        config.fast_path = args.fast_path;
    }
    if !args.cluster.is_empty() {
        config.cluster.servers = args.cluster;
    }
    config.cluster.credentials = args.cluster_creds.or(config.cluster.credentials);
    config.cluster.ca = args.cluster_ca.or(config.cluster.ca);
    let state = match args.state.or_else(|| config.state.clone()) {
        Some(state) => state,
        None => places::base_state()?,
    };
    let file = KeyFile::open_or_create(state.join("base.key"))?;
    let _lock = file.lock()?;

    let (mut stop, mut reload) = (Stop::without_hangup()?, Reload::new()?);
    let server = Server::bind(config, file.key().clone()).await?;
    let mut output = Output::new();
    for address in server.local_addrs() {
        if let Err(error) = output.line(&format!("base {}@{address}", server.id())).await {
            // Whoever waited for the first line may leave, or its disk be full; the base stays.
            if !error.is::<ReaderGone>() {
                tracing::warn!("{error}");
            }
            break;
        }
    }

    if let Some(admin) = server.admin_addr() {
        tell(format!("metrics and a page for people are at http://{admin}/"));
    }
    let handle = server.handle();
    let (drained, shutdown) = tokio::sync::oneshot::channel();
    // Among the tasks of its connections: what they tell each other then needs no other thread to wake.
    let mut running = tokio::spawn(server.run(async {
        let seconds = shutdown.await.unwrap_or(0);
        Shutdown::Drain(seconds)
    }));
    loop {
        tokio::select! {
            _ = &mut running => anyhow::bail!("the base server ended by itself"),
            () = stop.wait() => break,
            () = reload.wait() => handle.reload(),
            () = logs::tell_left_out() => {}
        }
    }
    if args.drain > 0 {
        tell(format!("telling devices to leave, ending in {} s (a second signal ends at once)", args.drain));
    }
    let _ = drained.send(args.drain);
    tokio::select! {
        _ = running => {}
        () = stop.wait() => {}
        () = tokio::time::sleep(Duration::from_secs(u64::from(args.drain)) + LAST_WORDS) => {}
    }
    Ok(())
}

/// Whoever reads standard error may have stopped: the base does not wait for him.
fn tell(sentence: String) {
    tokio::task::spawn_blocking(move || note(&sentence));
}

/// How long the end may take once the time to leave is over: longer than the base itself gives connections that do not close (3 s) and its
/// cluster (1 s), so that only one that hangs is cut off.
const LAST_WORDS: Duration = Duration::from_secs(6);
