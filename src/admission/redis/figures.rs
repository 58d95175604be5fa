//! The figures for the scripts: one struct per script, packed in the order of its fields. Each
//! script unpacks them by the same names in the same order; a test compares the two.

use crate::admission::clock::unix_micros;
use crate::admission::rounding::{lease_micros, micros};
use crate::admission::{Ask, EXPIRY_SKEW, Moment, Scope, Settlement, Stage, Verdict};
use crate::domain::{TenantLimits, Upstream};

macro_rules! figures {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        pub(super) struct $name {
            $(pub $field: f64),+
        }

        impl $name {
            /// The figures as little-endian doubles, which `struct.unpack` reads.
            pub(crate) fn packed(&self) -> [[u8; 8]; [$(stringify!($field)),+].len()] {
                [$(self.$field.to_le_bytes()),+]
            }

            #[cfg(test)]
            const NAMES: &[&str] = &[$(stringify!($field)),+];
        }
    };
}

figures! {
    /// ARGV[2] of `admit.lua`.
    AdmitFigures {
        clock, rate, burst, reserved, throttled, tenant_rate, tenant_burst, committed, share_burst,
        most, shadow, lease_us, longest_us, retention, uncertain, typical,
    }
}

figures! {
    /// ARGV[2] of `settle.lua`.
    SettleFigures { clock, rate, burst, throttled, tenant_rate, tenant_burst, expires }
}

figures! {
    /// ARGV[1] of `levels.lua`.
    UpstreamFigures { clock, rate, burst }
}

figures! {
    /// ARGV[2] of `levels.lua`, for each tenant.
    TenantFigures { tenant_rate, tenant_burst, committed, share_burst }
}

figures! {
    /// ARGV[1] of `record.lua`.
    RecordFigures { clock }
}

impl UpstreamFigures {
    pub(crate) fn of(upstream: &Upstream, clock: Option<u64>) -> Self {
        let (rate, burst) = (upstream.rate.per_second(), upstream.burst.into());
        Self { clock: time(clock), rate, burst }
    }
}

impl TenantFigures {
    pub(crate) fn of(limits: &TenantLimits) -> Self {
        Self {
            tenant_rate: limits.rate.per_second(),
            tenant_burst: limits.burst.into(),
            committed: limits.committed.per_second(),
            share_burst: limits.committed_burst().into(),
        }
    }
}

impl RecordFigures {
    pub(crate) fn of(clock: Option<u64>) -> Self {
        Self { clock: time(clock) }
    }
}

impl AdmitFigures {
    pub(crate) fn of(ask: &Ask, clock: Option<u64>) -> Self {
        let retention = ask.record.as_ref().map_or(0, |record| micros(record.retention));
        let uncertain = matches!(ask.stage, Stage::Attempt { uncertain: true });
        Self {
            throttled: moment(ask.throttled),
            lease_us: lease_micros(ask.lease) as f64,
            longest_us: micros(ask.wait) as f64,
            retention: retention as f64,
            uncertain: f64::from(u8::from(uncertain)),
            typical: micros(ask.typical) as f64,
            ..Self::of_scope(&ask.scope, clock)
        }
    }

    /// The figures without a call.
    pub(crate) fn of_scope(scope: &Scope, clock: Option<u64>) -> Self {
        let limits = &scope.limits;
        Self {
            clock: time(clock),
            rate: scope.rate.per_second(),
            burst: scope.burst.into(),
            reserved: scope.reserve(),
            throttled: NONE,
            tenant_rate: limits.rate.per_second(),
            tenant_burst: limits.burst.into(),
            committed: limits.committed.per_second(),
            share_burst: limits.committed_burst().into(),
            most: limits.max_in_flight.into(),
            shadow: f64::from(u8::from(scope.shadow())),
            ..Self::default()
        }
    }

    /// The figures of a probe: a budget of one call a second.
    pub(crate) fn of_probe() -> Self {
        let (clock, throttled) = (NONE, NONE);
        let (rate, burst, tenant_rate, tenant_burst) = (1.0, 1.0, 1.0, 1.0);
        Self { clock, rate, burst, throttled, tenant_rate, tenant_burst, ..Self::default() }
    }
}

impl SettleFigures {
    pub(crate) fn of(settlement: &Settlement, clock: Option<u64>) -> Self {
        let scope = &settlement.scope;
        let ends = match &settlement.verdict {
            Verdict::Done { expires, .. } => *expires,
            Verdict::Release { .. } | Verdict::Uncertain => None,
        };
        let ends = ends.map(|expires| unix_micros(expires).saturating_sub(micros(EXPIRY_SKEW)));
        Self {
            clock: time(clock),
            rate: scope.rate.per_second(),
            burst: scope.burst.into(),
            throttled: moment(settlement.throttled),
            tenant_rate: scope.limits.rate.per_second(),
            tenant_burst: scope.limits.burst.into(),
            expires: time(ends),
        }
    }

    pub(crate) fn of_probe() -> Self {
        let (clock, throttled, expires) = (NONE, NONE, NONE);
        let (rate, burst, tenant_rate, tenant_burst) = (1.0, 1.0, 1.0, 1.0);
        Self { clock, rate, burst, throttled, tenant_rate, tenant_burst, expires }
    }
}

fn time(micros: Option<u64>) -> f64 {
    micros.map_or(NONE, |micros| micros as f64)
}

fn moment(moment: Option<Moment>) -> f64 {
    time(moment.map(Moment::micros))
}

/// The value of an absent time.
const NONE: f64 = -1.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in front of `= struct.unpack('<…', ARGV[…])`, without comments.
    fn unpacked(script: &str) -> Vec<String> {
        let end = script.find("= struct.unpack('<").expect("the script unpacks its figures");
        let text = &script[..end];
        let start = text.rfind("\nlocal ").unwrap() + "\nlocal ".len();
        let code = text[start..].lines().map(|line| line.split("--").next().unwrap());
        let names = code.flat_map(|line| line.split(',')).map(str::trim);
        names.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
    }

    #[test]
    fn the_scripts_unpack_the_figures_in_the_order_in_which_they_are_packed() {
        assert_eq!(unpacked(include_str!("admit.lua")), AdmitFigures::NAMES);
        assert_eq!(unpacked(include_str!("settle.lua")), SettleFigures::NAMES);
        assert_eq!(unpacked(include_str!("levels.lua")), UpstreamFigures::NAMES);
        assert_eq!(unpacked(include_str!("record.lua")), RecordFigures::NAMES);
        let names = TenantFigures::NAMES.join(", ");
        assert!(
            include_str!("levels.lua").contains(&format!("{names}, at = struct.unpack('<dddd'"))
        );
    }

    #[test]
    fn the_scripts_unpack_as_many_doubles_as_there_are_figures() {
        for (script, figures) in [
            (include_str!("admit.lua"), AdmitFigures::NAMES.len()),
            (include_str!("settle.lua"), SettleFigures::NAMES.len()),
            (include_str!("levels.lua"), UpstreamFigures::NAMES.len()),
            (include_str!("record.lua"), RecordFigures::NAMES.len()),
        ] {
            let format = script.split("= struct.unpack('<").nth(1).unwrap();
            assert_eq!(format.chars().take_while(|c| *c == 'd').count(), figures);
        }
    }
}
