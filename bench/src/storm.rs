//! `storm`: twenty thousand devices register at once, as they do when a base is started again under them.
//!
//! The connections stand and the cookies are given; what is measured is from the first REGISTER written to the last REGISTERED read. The
//! reference is how many Ed25519 signatures one core verifies: a registration cannot cost less.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cpu,
    host::{BaseProcess, Host},
    idle::{OPEN_TO_ALL, allowed},
    netns::{Net, Side},
    raw::device_ip,
    report::{Goal, Options, Report, in_turn},
};
use bowline_proto::{SecretKey, identity::Context, wire::tcp::BaseFrame};

const DEVICES: usize = 20_000;
const DEVICES_QUICK: usize = 2_000;
const OF_AN_IP: usize = 128;

pub(crate) fn run(options: &Options, report: &mut Report) {
    let (count, rounds) = if options.quick { (DEVICES_QUICK, 3) } else { (DEVICES, 3) };
    let count = allowed(count);
    let case = format!("{count} devices");
    let net = Net::new(options);
    let mut longest = Vec::new();
    let pairs = in_turn(
        rounds,
        || {
            let (rate, share) = registered(&net, count);
            longest.push(share);
            rate
        },
        || thread::spawn(verifications).join().unwrap_or(f64::NAN),
    );
    report.pairs(&case, "registrations/s (reference: bare verifications)", &pairs, Goal::AtLeast(0.5));
    report.figures(
        &format!("{case}: longest wait"),
        "of the whole storm's time",
        &longest,
        Goal::AtMost(1.0),
    );
}

/// Registrations a second, and the longest time between a REGISTER and its REGISTERED as a share of the whole.
fn registered(net: &Net, count: usize) -> (f64, f64) {
    let base = BaseProcess::start(&net.middle, OPEN_TO_ALL);
    let mut hosts: Vec<Host> = (0..count)
        .map(|number| {
            let ip = device_ip(Side::Left, number / OF_AN_IP);
            Host::connect_from(&net.left, ip, Net::base(Side::Left), base.id, number as u32)
        })
        .collect();
    let registers: Vec<Vec<u8>> = hosts.iter_mut().map(Host::register_frame).collect();
    let start = Instant::now();
    let mut written = Vec::with_capacity(count);
    for (host, register) in hosts.iter_mut().zip(&registers) {
        host.write(register);
        written.push(start.elapsed());
    }
    let mut longest = Duration::ZERO;
    for (host, written) in hosts.iter_mut().zip(written) {
        let answer = host.read();
        assert!(
            matches!(BaseFrame::decode(&answer), Ok(BaseFrame::Registered(_))),
            "no REGISTERED: {answer:?}"
        );
        longest = longest.max(start.elapsed().saturating_sub(written));
    }
    let whole = start.elapsed();
    (count as f64 / whole.as_secs_f64(), longest.as_secs_f64() / whole.as_secs_f64())
}

/// Verifications a second on the base's core.
fn verifications() -> f64 {
    cpu::pin(cpu::BASE_CORE);
    let key = SecretKey::from_seed(&[5; 32]);
    let public = key.public();
    let message = [7; 96];
    let signature = key.sign(Context::Register, &[&message]);
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..64 {
            assert!(black_box(&public).verifies(Context::Register, &[black_box(&message)], &signature));
            count += 1;
        }
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
