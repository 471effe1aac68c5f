//! `bowline ping`: how long the way to a device is, and which way it is.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bowline::{Datagram, DeviceId, Event, EventItem, Path};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::{
    args::{HostArgs, seconds},
    config::Config,
    echo,
    host::{Host, Identity},
    names::device,
    notes::{Teller, note},
    output::{self, Output, STRONG, WEAK, json_millis, millis, paint},
    signals::Stop,
    stats::Stats,
};

/// Measure the way to a device that runs `bowline listen`, and see which way it is
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first ping leaves at once, over the relay; the path changes when a better one stands. Exit code 0 if anything was \
answered.

With --json, a line per answer: seq, rtt_ms, path (\"relay-tcp\", \"relay-udp\" or \"direct\") and address (of a direct \
path); the last line: sent, received, and first_direct_ms (from the first ping to the direct path; null without one).

Examples:
  bowline ping 93kz-a462-42sk-d06c-7gh2-3ksw
  bowline ping 93kz-a462-42sk-d06c-7gh2-3ksw -c 10 -i 0.2 --base base.example.net
  bowline ping 93kz-a462-42sk-d06c-7gh2-3ksw -c 3 --json | jq -r .path")]
pub(crate) struct Args {
    /// The device, by its ID or its name
    #[arg(value_parser = device)]
    device: DeviceId,
    /// End after N pings [default: with Ctrl-C]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// The time between pings
    #[arg(short, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// How long to wait for a way to the device, and for answers after the last ping
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    timeout: Duration,
    /// Print one JSON object per answer, and one at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// The shortest time between pings: a thousand a second measure a path, more would load it.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    let shortest = SHORTEST_INTERVAL.as_secs_f64();
    if interval < SHORTEST_INTERVAL {
        Err(format!("the shortest interval is {shortest} s"))
    } else {
        Ok(interval)
    }
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let host = Host::start(&args.host, config, Identity::Fresh).await?;
    host.refuse_oneself(args.device)?;
    let mut session = Session::new(&host, &args)?;
    let done = tokio::select! {
        done = session.run() => done,
        () = stop.wait() => Ok(()),
    };
    let done = match done {
        Ok(()) => session.summary().await,
        failed => failed,
    };
    drop(session);
    host.leave().await;
    done
}

/// One run of ping.
struct Session<'a> {
    host: &'a Host,
    args: &'a Args,
    /// Tells answers to this run from those to another.
    run: u64,
    output: Output,
    stats: Stats,
    /// When the first ping left.
    began: Option<Instant>,
    first_direct: Option<Duration>,
    /// Reasons why a ping could not leave; each is told once.
    told: HashSet<String>,
}

#[derive(Serialize)]
struct Answer {
    seq: u32,
    rtt_ms: f64,
    path: &'static str,
    address: Option<std::net::SocketAddr>,
}

#[derive(Serialize)]
struct Summary {
    sent: u32,
    received: u32,
    first_direct_ms: Option<f64>,
}

impl<'a> Session<'a> {
    fn new(host: &'a Host, args: &'a Args) -> anyhow::Result<Self> {
        let run = getrandom::u64()?;
        Ok(Self {
            host,
            args,
            run,
            output: Output::new(),
            stats: Stats::default(),
            began: None,
            first_direct: None,
            told: HashSet::new(),
        })
    }

    /// Pings until the count is reached and all is answered, or patience is over.
    async fn run(&mut self) -> anyhow::Result<()> {
        let (host, device) = (self.host, self.args.device);
        if !self.args.json {
            self.output.line(&format!("PING {}", paint(STRONG, device))).await?;
        }
        let mut events = host.endpoint.events();
        let mut teller = Teller::terse();
        let request = echo::request(self.run, self.stats.next_number());
        // An answer may come before this task goes on: the round trip begins before the attempt that succeeds.
        let first = async |endpoint: &bowline::Endpoint| {
            let now = Instant::now();
            endpoint.send(device, &request).await.map(|()| now)
        };
        let first = host.patiently(self.args.timeout, first);
        tokio::pin!(first);
        let began = loop {
            tokio::select! {
                sent = &mut first => break sent?,
                Some(item) = events.next() => teller.tell(&item),
            }
        };
        self.began = Some(began);
        self.stats.sent(began);

        let mut ticks = interval_at((began + self.args.interval).into(), self.args.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let last_answer_by = tokio::time::sleep(self.args.timeout);
        tokio::pin!(last_answer_by);
        loop {
            let all_sent = self.args.count.is_some_and(|count| self.stats.sent >= count);
            if all_sent && self.stats.all_answered() {
                return Ok(());
            }
            tokio::select! {
                received = host.endpoint.recv_datagram() => self.answered(received?).await?,
                Some(item) = events.next() => {
                    teller.tell(&item);
                    self.happened(item).await?;
                }
                _ = ticks.tick(), if !all_sent => {
                    self.send_next();
                    last_answer_by.as_mut().reset((Instant::now() + self.args.timeout).into());
                }
                () = &mut last_answer_by, if all_sent => return Ok(()),
            }
        }
    }

    fn send_next(&mut self) {
        let request = echo::request(self.run, self.stats.next_number());
        self.stats.sent(Instant::now());
        if let Err(error) = self.host.endpoint.try_send(self.args.device, &request) {
            let reason = error.to_string();
            if self.told.insert(reason.clone()) {
                note(&format!("ping {} could not leave: {reason}", self.stats.sent));
            }
        }
    }

    async fn answered(&mut self, datagram: Datagram) -> anyhow::Result<()> {
        let now = Instant::now();
        if datagram.from != self.args.device {
            return Ok(());
        }
        let Some(seq) = echo::answered(self.run, &datagram.data) else { return Ok(()) };
        let Some(rtt) = self.stats.received(seq, now) else { return Ok(()) };
        if let Path::Direct(_) = datagram.path {
            self.saw_direct(now);
        }
        if self.args.json {
            let answer = Answer {
                seq,
                rtt_ms: json_millis(rtt),
                path: output::path_name(datagram.path),
                address: output::path_address(datagram.path),
            };
            return self.output.json(&answer).await;
        }
        let line = format!("seq={seq:<3} time={} ms  {}", millis(rtt), output::path(datagram.path));
        self.output.line(&line).await
    }

    async fn happened(&mut self, item: EventItem) -> anyhow::Result<()> {
        let EventItem::Event(event) = item else { return Ok(()) };
        match event {
            Event::PathChanged { peer, from, to, reason } if peer == self.args.device => {
                if let Path::Direct(_) = to {
                    self.saw_direct(Instant::now());
                }
                // How it begins is seen from the first answer.
                let begins = from == Path::None && self.stats.received == 0;
                if !self.args.json && from != to && !begins {
                    let change = format!("{} to {}", output::path(from), output::path(to));
                    let reason = paint(WEAK, format_args!("({reason})"));
                    self.output.line(&format!("path: {change} {reason}")).await?;
                }
            }
            Event::Unreachable { peer, reason } if peer == self.args.device => {
                let reason = format!("the base cannot deliver to this device: {reason}");
                if self.told.insert(reason.clone()) {
                    note(&reason);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn saw_direct(&mut self, now: Instant) {
        if let (Some(began), None) = (self.began, self.first_direct) {
            self.first_direct = Some(now.saturating_duration_since(began));
        }
    }

    async fn summary(&mut self) -> anyhow::Result<()> {
        let (sent, received) = (self.stats.sent, self.stats.received);
        if self.args.json {
            let first_direct_ms = self.first_direct.map(json_millis);
            self.output.json(&Summary { sent, received, first_direct_ms }).await?;
        } else {
            self.output.line(&self.summary_text()).await?;
        }
        if received > 0 {
            return Ok(());
        }
        match self.began {
            None => anyhow::bail!("interrupted before the first ping could leave"),
            Some(_) => {
                let device = self.args.device;
                anyhow::bail!(
                    "none of {sent} pings to {device} was answered: {}",
                    self.host.why_silent(device)
                )
            }
        }
    }

    fn summary_text(&self) -> String {
        let stats = &self.stats;
        let mut text = format!(
            "--- {} ---\n{} sent, {} received, {}% lost",
            paint(STRONG, self.args.device),
            stats.sent,
            stats.received,
            stats.loss_percent()
        );
        if stats.repeated > 0 {
            text += &format!(", {} repeated", stats.repeated);
        }
        if let Some(began) = self.began {
            text += &format!(", in {} ms", began.elapsed().as_millis());
        }
        if let Some(rtt) = stats.round_trips() {
            let [min, avg, max, mdev] = [rtt.min, rtt.avg, rtt.max, rtt.mdev].map(millis);
            text += &format!("\nround trip min/avg/max/mdev = {min}/{avg}/{max}/{mdev} ms");
        }
        text += &match self.first_direct {
            Some(after) => format!("\ndirect after {} ms", millis(after)),
            None => "\nno direct path".to_owned(),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_has_a_floor() {
        assert_eq!(interval("0.001"), Ok(SHORTEST_INTERVAL));
        assert!(interval("0.0009").is_err());
    }

    /// What other programs read; the names stay as they are.
    #[test]
    fn the_json_shapes_are_fixed() {
        let answer = Answer { seq: 1, rtt_ms: 0.25, path: "relay-tcp", address: None };
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(json, r#"{"seq":1,"rtt_ms":0.25,"path":"relay-tcp","address":null}"#);
        let summary = Summary { sent: 2, received: 1, first_direct_ms: Some(3.5) };
        let json = serde_json::to_string(&summary).unwrap();
        assert_eq!(json, r#"{"sent":2,"received":1,"first_direct_ms":3.5}"#);
    }
}
