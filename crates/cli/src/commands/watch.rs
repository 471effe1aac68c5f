//! `bowline watch`: what is known of a peer, and why, as it changes.

use std::time::{Duration, Instant};

use bowline::{DeviceId, Path};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    args::{HostArgs, seconds},
    config::Config,
    host::{Host, Identity},
    names::device,
    notes::Teller,
    output::{Output, WEAK, paint},
    signals::Stop,
    view::View,
};

/// Show what is known of a peer and why: base, reflexive address, candidates and what each answered, path
#[derive(Debug, clap::Args)]
#[command(after_help = "\
On a terminal the page is redrawn in place; in a pipe a block is printed per change. Ends with Ctrl-C.

Examples:
  bowline watch 93kz-a462-42sk-d06c-7gh2-3ksw
  bowline watch 93kz-a462-42sk-d06c-7gh2-3ksw --once --base base.example.net
  bowline watch 93kz-a462-42sk-d06c-7gh2-3ksw --json | jq -r .peer.path")]
pub(crate) struct Args {
    /// The device, by its ID or its name
    #[arg(value_parser = device)]
    device: DeviceId,
    /// Show it once: as soon as a direct path stands, or when the timeout has passed
    #[arg(long)]
    once: bool,
    /// How long --once waits for a direct path
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// Print one JSON object per change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// How often the state is looked at: as often as an eye can follow.
const LOOK: Duration = Duration::from_millis(250);
/// How often a page on a terminal is redrawn though nothing but ages has changed.
const REDRAW: Duration = Duration::from_secs(1);
/// How long the base's answer over UDP is waited for once the path is direct.
const BASE_ANSWERS: Duration = Duration::from_secs(1);
/// How often the endpoint is told that the peer is still of interest, long before it counts as idle (120 s).
const RENEW: Duration = Duration::from_secs(30);

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let host = Host::start(&args.host, config, Identity::Fresh).await?;
    host.refuse_oneself(args.device)?;
    let mut events = host.endpoint.events();
    let mut screen = Screen::new(args.json, args.once);
    let mut teller = Teller::terse();
    let mut wish = Wish::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = Instant::now() + args.timeout;
    let mut direct_since = None;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            // On a terminal a sentence in between would spoil the page, which says it all anyway.
            Some(item) = events.next() => if !screen.in_place { teller.tell(&item) },
            () = stop.wait() => break,
        }
        wish.renew(&host, args.device);
        let now = Instant::now();
        let status = host.endpoint.status();
        let seen = status.base.as_ref().is_none_or(|base| base.udp.iter().any(|b| b.reflexive.is_some()));
        let view = View::new(args.device, status, now);
        if matches!(view.path(), Path::Direct(_)) {
            direct_since.get_or_insert(now);
        }
        // A direct path may stand before the base has said how it sees this device.
        let complete = direct_since.is_some_and(|since| seen || now >= since + BASE_ANSWERS);
        if !args.once {
            screen.show(&view, now).await?;
        } else if complete || now >= deadline {
            screen.show(&view, now).await?;
            let nothing_known = view.path() == Path::None;
            let why = view.why_no_base().filter(|_| nothing_known).map(ToOwned::to_owned);
            host.leave().await;
            return why.map_or(Ok(()), |why| Err(anyhow::anyhow!("there is no way to this device: {why}")));
        }
    }
    screen.end().await?;
    host.leave().await;
    Ok(())
}

/// That a path to the peer is wanted, said again and again.
#[derive(Default)]
struct Wish {
    said: Option<Instant>,
}

impl Wish {
    fn renew(&mut self, host: &Host, device: DeviceId) {
        if self.said.is_none_or(|said| said.elapsed() >= RENEW) {
            // Without a base or a link there is no way yet: said again at the next look.
            self.said = host.endpoint.want(device).is_ok().then(Instant::now);
        }
    }
}

/// Where views are shown.
struct Screen {
    output: Output,
    json: bool,
    /// Redrawn in place, on a terminal.
    in_place: bool,
    shown: Option<(crate::view::Facts, Instant)>,
}

/// To the upper left corner, and clear from there.
const HOME: &str = "\x1b[H\x1b[J";
/// A page of its own, without a cursor, so that what was on the terminal before is there again afterwards.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

impl Screen {
    fn new(json: bool, once: bool) -> Self {
        let in_place = Output::is_terminal() && !json && !once;
        Self { output: Output::new(), json, in_place, shown: None }
    }

    /// Shows a view if there is something new to see.
    async fn show(&mut self, view: &View, now: Instant) -> anyhow::Result<()> {
        let facts = view.facts();
        let first = self.shown.is_none();
        let fresh = match &self.shown {
            None => true,
            Some((shown, at)) => {
                *shown != facts || self.in_place && now.saturating_duration_since(*at) >= REDRAW
            }
        };
        if !fresh {
            return Ok(());
        }
        self.shown = Some((facts, now));
        if self.json {
            return self.output.json(&view.json()).await;
        }
        if self.in_place {
            let enter = if first { ENTER } else { "" };
            self.output.bytes(format!("{enter}{HOME}").as_bytes()).await?;
            let hint = paint(WEAK, "Ctrl-C ends this");
            return self.output.line(&format!("{}\n\n{hint}", view.text())).await;
        }
        let gap = if first { "" } else { "\n" };
        self.output.line(&format!("{gap}{}", view.text())).await
    }

    /// Leaves the terminal as it was, with the last view on it.
    async fn end(&mut self) -> anyhow::Result<()> {
        if self.in_place && self.shown.is_some() {
            self.output.bytes(LEAVE.as_bytes()).await?;
        }
        Ok(())
    }
}
