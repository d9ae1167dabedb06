//! Two ends on a link that splits, delays and interleaves data: every byte arrives, in order and
//! within its limit.
//!
//! Readers and writers act only after an event, so that a missing event shows as a deadlock.

mod world;

use proptest::collection::vec;
use proptest::prelude::*;
use world::{Job, World};

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 3 => 1..100_usize, 3 => 1..300_000_usize, 1 => 1..3_000_000_usize]
}

fn job() -> impl Strategy<Value = Job> {
    let stop = || prop_oneof![4 => Just(None), 1 => length().prop_map(Some)];
    ([length(), length(), length()], [stop(), stop(), stop()])
        .prop_map(|(lengths, stop_after)| Job { lengths, stop_after })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn all_data_arrives_in_any_order_of_events(
        jobs in vec(job(), 1..6),
        slots in 1..4_u32,
        budget in prop_oneof![Just(0), Just(1 << 20), Just(u64::MAX >> 1)],
        low_latency in any::<bool>(),
        steps in vec((0..7_u8, any::<bool>(), 0..6_usize, 0..3_usize, 1..100_000_usize), 0..600),
    ) {
        let mut world = World::new(jobs, slots, budget);
        if low_latency {
            world.set_low_latency();
        }
        for (action, at_server, job, stream, amount) in steps {
            world.step(action, at_server, job, stream, amount);
        }
        world.run_to_the_end();
    }
}

#[test]
fn a_long_transfer_needs_many_credits() {
    let job = Job { lengths: [1 << 20, 10 << 20, 3 << 20], stop_after: [None; 3] };
    World::new(vec![job], 1, 0).run_to_the_end();
}
