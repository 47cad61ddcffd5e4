//! Work that recurs falls on one beat: what wakes up together wakes the machine once.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::pid1::fence::boottime;

/// Ticks at the multiples of `every` by the machine's clock since it was booted, the first one being the next. What takes
/// longer than `every` misses ticks; they are not made up for.
pub fn beat(every: Duration) -> Interval {
    let every = every.max(Duration::from_millis(1));
    let since = boottime().0.as_nanos() % every.as_nanos();
    let next = every - Duration::from_nanos(u64::try_from(since).unwrap_or_default());
    let mut ticks = interval_at(Instant::now() + next, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_that_began_apart_tick_together() {
        let every = Duration::from_millis(40);
        let mut early = beat(every);
        tokio::time::sleep(Duration::from_millis(15)).await;
        let mut late = beat(every);
        let (first, second) = (early.tick().await, late.tick().await);
        let apart = if first > second { first - second } else { second - first };
        // Between the reading of the two clocks a busy machine may stop for a while.
        let off = apart.as_micros() % every.as_micros();
        assert!(off.min(every.as_micros() - off) < 5000, "{apart:?} apart");
    }
}
