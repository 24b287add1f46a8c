//! The long form of a randomised test: minutes of new cases instead of a few hundred.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

const MINUTES: u64 = 10;
/// Cases between two looks at the clock.
const BATCH: u32 = 64;

/// Runs `test` on values of `strategy` for [`MINUTES`], when `VMREPL_SLOW` asks for it. `VMREPL_SEED` repeats
/// a run, `VMREPL_MINUTES` sets its length.
pub(crate) fn run<S: Strategy>(name: &str, strategy: S, test: impl Fn(S::Value) -> TestCaseResult)
where
    S::Value: Debug,
{
    if std::env::var_os("VMREPL_SLOW").is_none_or(|value| value.is_empty()) {
        eprintln!("{name}: the long form is for VMREPL_SLOW");
        return;
    }
    let seed = number("VMREPL_SEED").unwrap_or_else(now);
    let minutes = number("VMREPL_MINUTES").unwrap_or(MINUTES);
    eprintln!("{name}: VMREPL_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: BATCH,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config.clone(), rng);
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut cases = 0_u64;
    while Instant::now() < end {
        if let Err(error) = runner.run(&strategy, &test) {
            panic!("{name}: VMREPL_SEED={seed}, after {cases} cases: {error}");
        }
        cases += u64::from(BATCH);
        // A runner counts its cases up to its limit; the next one goes on with its randomness.
        runner = TestRunner::new_with_rng(config.clone(), runner.new_rng());
    }
    eprintln!("{name}: {cases} cases");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() ^ u64::from(since.subsec_nanos())
}
