//! What devices may have relayed: counted by the program, in what the base's workers count in, too.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use bowline_fastpath::Counts;
use bowline_lab::{Lab, eventually, in_network_as_root};
use bowline_proto::{
    DeviceId,
    base::{Follower as _, Limits},
    bucket::Rate,
    wire::relay,
};

use crate::{
    DEVICES, Family, MARK, PATIENCE, World,
    frames::{Tap, frame},
    message, relayed, to,
};

/// Nothing comes back while a test lasts.
const LONG: Duration = Duration::from_secs(3_600);
const MESSAGES: usize = 0;
const UNITS: usize = 1;

fn limits(messages: Option<u32>, units: Option<u32>) -> Option<Limits> {
    let rate = |burst| Rate { burst, every: LONG };
    Some(Limits { start: Instant::now(), messages: messages.map(rate), units: units.map(rate), unit: 64 })
}

impl World {
    /// Of so many that the first device has sent, none goes on. How many the base's socket sees.
    fn refuses(&self, sent: usize, send: impl FnOnce()) -> usize {
        let before = self.fast_path.counts();
        send();
        self.a.send(MARK);
        let passed =
            std::iter::from_fn(|| Some(self.passed_up()).filter(|datagram| datagram != MARK)).count();
        let over_rate = before.over_rate + (sent - passed) as u64;
        assert_eq!(self.fast_path.counts(), Counts { over_rate, ..before });
        passed
    }

    /// What is counted in the first device's budget, in times that one thing takes to come back.
    fn spent(&self, which: usize) -> u64 {
        let full_at = self.a.budget.as_ref().unwrap().full_at()[which].load(Relaxed);
        // It was full when the test began.
        full_at / LONG.as_nanos() as u64
    }

    /// So much comes back.
    fn earn(&self, which: usize, count: u64) {
        let nanos = count * LONG.as_nanos() as u64;
        self.a.budget.as_ref().unwrap().full_at()[which].fetch_sub(nanos, Relaxed);
    }

    /// The same goes, as a worker takes it.
    fn spend(&self, which: usize, count: u64) {
        self.a.budget.as_ref().unwrap().full_at()[which].fetch_add(count * LONG.as_nanos() as u64, Relaxed);
    }
}

fn a_device_gets_what_it_may_have(lab: &Lab, family: Family) {
    let world = World::with(lab, family, limits(Some(10), None));
    for length in 0..10 {
        world.goes_on(&to(&world.b, length));
    }
    world.refuses(3, || (0..3).for_each(|_| world.a.send(&to(&world.b, 10))));
    // Nobody else is hindered.
    for length in 0..10 {
        world.b.send(&to(&world.a, length));
        assert_eq!(world.a.receive(), relayed(&to(&world.a, length), world.b.id));
    }
    world.earn(MESSAGES, 2);
    world.goes_on(&to(&world.b, 10));
    world.goes_on(&to(&world.b, 10));
    world.refuses(1, || world.a.send(&to(&world.b, 10)));
}

#[test]
fn a_device_gets_what_it_may_have_over_ipv4() {
    in_network_as_root(|lab| a_device_gets_what_it_may_have(lab, Family::V4));
}

#[test]
fn a_device_gets_what_it_may_have_over_ipv6() {
    in_network_as_root(|lab| a_device_gets_what_it_may_have(lab, Family::V6));
}

#[test]
fn what_workers_forward_counts_and_what_they_see_of_it() {
    in_network_as_root(|lab| {
        let world = World::with(lab, Family::V4, limits(Some(10), Some(40)));
        for _ in 0..5 {
            world.goes_on(&to(&world.b, 10));
            world.spend(MESSAGES, 1);
            world.spend(UNITS, 1);
        }
        assert_eq!((world.spent(MESSAGES), world.spent(UNITS)), (10, 10));
        world.refuses(1, || world.a.send(&to(&world.b, 10)));
        // What does not go on costs nothing: to nobody who is here, and more than there is.
        world.earn(MESSAGES, 5);
        world.comes_to_the_base(&message(relay::SEND_DATA, DeviceId::of_public_key(&[9; 32]), 10, 0));
        world.spend(UNITS, 29);
        world.refuses(1, || world.a.send(&to(&world.b, 64)));
        assert_eq!((world.spent(MESSAGES), world.spent(UNITS)), (5, 39));
        world.goes_on(&to(&world.b, 63));
        assert_eq!((world.spent(MESSAGES), world.spent(UNITS)), (6, 40));
    });
}

#[test]
fn data_counts_in_units_of_which_each_message_has_one_more_than_it_fills() {
    in_network_as_root(|lab| {
        let world = World::with(lab, Family::V4, limits(None, Some(100)));
        let mut spent = 0;
        for (length, units) in [(0, 1), (63, 1), (64, 2), (127, 2), (128, 3), (1_200, 19)] {
            world.goes_on(&to(&world.b, length));
            spent += units;
            assert_eq!(world.spent(UNITS), spent, "{length} bytes");
        }
        assert_eq!(world.spent(MESSAGES), 0);
    });
}

#[test]
fn merged_messages_count_one_by_one_and_go_on_or_not_as_one() {
    in_network_as_root(|lab| {
        let world = World::with(lab, Family::V4, limits(Some(10), Some(100)));
        let tap = Tap::of(&world.middle);
        let run = |datagrams: &[Vec<u8>]| {
            let frame = frame(world.a.address(), world.a.base, &datagrams.concat());
            tap.put_merged(&frame, datagrams[0].len());
        };
        let three = [to(&world.b, 200), to(&world.b, 200), to(&world.b, 50)];
        for spent in [(3, 9), (6, 18), (9, 27)] {
            run(&three);
            for sent in &three {
                assert_eq!(world.b.receive(), relayed(sent, world.a.id));
            }
            assert_eq!((world.spent(MESSAGES), world.spent(UNITS)), spent);
        }
        let passed = world.refuses(3, || run(&three));
        assert!(passed == 0 || passed == 3, "{passed}");
        assert_eq!((world.spent(MESSAGES), world.spent(UNITS)), (9, 27));
        world.goes_on(&to(&world.b, 10));
        // Of two devices: the workers' business.
        world.earn(MESSAGES, 10);
        run(&[to(&world.b, 200), to(&world.a, 200)]);
        assert_eq!([world.passed_up(), world.passed_up()], [to(&world.b, 200), to(&world.a, 200)]);
        assert_eq!((world.spent(MESSAGES), world.spent(UNITS)), (0, 28));
    });
}

#[test]
fn the_sockets_see_now_and_then_what_is_over_the_rate() {
    in_network_as_root(|lab| {
        // More than can ever be there at once.
        let world = World::with(lab, Family::V4, limits(Some(2), None));
        let tap = Tap::of(&world.middle);
        let run = vec![to(&world.b, 100); 5];
        let merged = frame(world.a.address(), world.a.base, &run.concat());
        let start = Instant::now();
        let mut passed = 0;
        eventually("a drop", PATIENCE, || {
            passed += world.refuses(5, || tap.put_merged(&merged, run[0].len()));
            (passed > 5 && world.fast_path.counts().over_rate > 0).then_some(())
        });
        let most = 1 + start.elapsed().as_millis() as usize / 10;
        assert!(passed / 5 <= most, "{} in {most} times 10 ms", passed / 5);
    });
}

#[test]
fn what_was_spent_comes_back_in_time() {
    const EVERY: Duration = Duration::from_millis(20);
    in_network_as_root(|lab| {
        let rate = Rate { burst: 5, every: EVERY };
        let start = Instant::now();
        let world =
            World::with(lab, Family::V4, Some(Limits { start, messages: Some(rate), units: None, unit: 64 }));
        let begun = Instant::now();
        let gone = || world.fast_path.counts().messages;
        eventually("25 messages", PATIENCE, || {
            world.a.send(&to(&world.b, 10));
            (gone() >= 25).then_some(())
        });
        assert!(begun.elapsed() >= EVERY * (gone() as u32 - 5), "{} in {:?}", gone(), begun.elapsed());
    });
}

#[test]
fn what_counts_nowhere_is_left_to_the_base() {
    in_network_as_root(|lab| {
        let world = World::with(lab, Family::V4, limits(None, Some(100)));
        for budget in [None, Some(100_000)] {
            world.fast_path.seized(&world.a.source(), world.a.id, budget);
            world.comes_to_the_base(&to(&world.b, 10));
        }
    });
}

#[test]
fn the_budget_of_a_session_that_has_ended_is_another_s_and_full() {
    in_network_as_root(|lab| {
        let mut world = World::with(lab, Family::V4, limits(Some(3), None));
        let mut all: Vec<_> = std::iter::from_fn(|| world.fast_path.budget()).collect();
        assert!(all.len() >= 2 * DEVICES);
        (0..3).for_each(|_| world.goes_on(&to(&world.b, 10)));
        world.refuses(1, || world.a.send(&to(&world.b, 10)));
        // The one that has been free for longest.
        let numbers = [all[7].number(), world.a.budget.as_ref().unwrap().number()];
        all.remove(7);
        world.a.budget = None;
        let given = [world.fast_path.budget(), world.fast_path.budget()].map(Option::unwrap);
        assert_eq!(given.each_ref().map(|budget| budget.number()), numbers);
        assert!(world.fast_path.budget().is_none());
        let [_, again] = given;
        world.fast_path.seized(&world.a.source(), world.a.id, Some(again.number()));
        world.a.budget = Some(again);
        (0..3).for_each(|_| world.goes_on(&to(&world.b, 10)));
        world.refuses(1, || world.a.send(&to(&world.b, 10)));
    });
}
