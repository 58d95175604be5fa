//! What is explored, and within which bounds.

use std::time::Duration;

use crate::callers::CallSpec;
use crate::mutants::Calls;
use crate::search::Scenario;
use crate::world::Limits;

/// Of one content.
const A: CallSpec = CallSpec { content: 0, opens: true };
/// Of other content.
const B: CallSpec = CallSpec { content: 1, opens: true };
/// Of the first content, in a gateway that cannot open the others' results.
const BLIND: CallSpec = CallSpec { content: 0, opens: false };

/// What the environment gives.
pub struct Bounds {
    /// `EXPLORE_SECONDS`: how long the searches of one store may take. Absent: small bounds, and
    /// each search ends by itself.
    pub time: Option<Duration>,
    /// `CALLS=3`: only the searches with three calls.
    pub calls: Option<usize>,
    /// `FAULTS`: the most faults of one history.
    faults: Option<u8>,
}

impl Bounds {
    pub fn given() -> Self {
        let seconds: Option<u64> = number("EXPLORE_SECONDS");
        let (calls, faults) = (number("CALLS"), number("FAULTS"));
        Self { time: seconds.map(Duration::from_secs), calls, faults }
    }
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{name} must be a whole number, and is {text:?}")))
}

/// All searches within these bounds.
pub fn all(bounds: &Bounds) -> Vec<Scenario> {
    let some = u8::from(bounds.time.is_some());
    let ample = |name, calls: &[CallSpec], faults, losses| Scenario {
        name,
        calls: calls.to_vec(),
        limits: Limits::AMPLE,
        faults,
        losses,
        on_the_way: 1,
    };
    let queued = |name, calls: &[CallSpec], faults| Scenario {
        limits: Limits::SCARCE,
        ..ample(name, calls, faults, 0)
    };
    // The larger searches come last: they have the time that the smaller ones leave.
    let mut all = vec![
        ample("two calls of the same content", &[A, A], some, 0),
        ample("two calls of other content", &[A, B], some, 0),
        ample("two calls, and one cannot open results", &[A, BLIND], some, 0),
    ];
    if bounds.time.is_some() {
        all.extend([
            ample("three calls of the same content", &[A, A, A], 0, 0),
            ample("three calls, one of other content", &[A, A, B], 0, 0),
            ample("three calls, and one cannot open results", &[A, A, BLIND], 0, 0),
        ]);
    }
    all.extend([
        queued("two calls of the same content that queue", &[A, A], some),
        queued("two calls of other content that queue", &[A, B], some),
        ample("two calls of the same content, and a loss of data", &[A, A], some, 1),
        ample("two calls of other content, and a loss of data", &[A, B], some, 1),
    ]);
    if let Some(calls) = bounds.calls {
        all.retain(|scenario| scenario.calls.len() == calls);
    }
    if let Some(faults) = bounds.faults {
        all.iter_mut().for_each(|scenario| scenario.faults = faults);
    }
    all
}

/// What finds a script without one of its rules.
pub fn of_mutant(calls: Calls) -> Scenario {
    let (calls, limits) = match calls {
        Calls::Alike => (vec![A, A], Limits::AMPLE),
        Calls::Other => (vec![A, B], Limits::AMPLE),
        Calls::Queued => (vec![A, A], Limits::SCARCE),
    };
    let name = "a script without one of its rules";
    Scenario { name, calls, limits, faults: 2, losses: 0, on_the_way: 1 }
}
