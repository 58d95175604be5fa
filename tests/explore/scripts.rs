//! The scripts of Redis as the gateway sends them, and their arguments.

use crate::world::{
    Content, LEASE, LONGEST_WAIT, Limits, Op, RESULT, RETENTION, Stage, Verdict, Who,
};

/// The texts of both scripts.
#[derive(Clone)]
pub struct Scripts {
    pub admit: String,
    pub settle: String,
}

impl Scripts {
    pub fn real() -> Self {
        Self {
            admit: [COMMON, include_str!("../../src/admission/redis/queue.lua"), ADMIT].concat(),
            settle: [COMMON, SETTLE].concat(),
        }
    }

    /// The harness with these texts in it, to be run by EVAL.
    pub fn harness(&self) -> String {
        include_str!("harness.lua")
            .replace("--ADMIT--", &self.admit)
            .replace("--SETTLE--", &self.settle)
    }

    /// The name of the script that the op runs, and its ARGV.
    pub fn call(&self, op: Op, limits: &Limits) -> (&'static str, Vec<Vec<u8>>) {
        match op {
            Op::Ask { who, stage, content, distrust } => {
                let word = match stage {
                    Stage::Call => "call",
                    Stage::Attempt { .. } => "attempt",
                    Stage::Renew => "renew",
                };
                let is_uncertain = stage == Stage::Attempt { uncertain: true };
                let figures = figures(&self.admit, |name| admit_figure(name, limits, is_uncertain));
                let mut args = vec![word.into(), figures, nonce(who).into(), TENANT.into()];
                args.push(VERSION.into());
                args.extend(
                    [print_of(content), token_of(content), mac_of(content)].map(Into::into),
                );
                args.push(distrust.map(sealed_by).unwrap_or_default().into());
                ("admit", args)
            }
            Op::Settle { who, verdict } => {
                let word = match verdict {
                    Verdict::Done => "done",
                    Verdict::Release => "release",
                    Verdict::Refund => "refund",
                    Verdict::Uncertain => "uncertain",
                };
                let figures = figures(&self.settle, |name| settle_figure(name, limits, verdict));
                let mut args = vec![word.into(), figures, nonce(who).into(), TENANT.into()];
                if verdict == Verdict::Done {
                    args.push(sealed_by(who).into());
                }
                ("settle", args)
            }
        }
    }
}

/// The figures of ARGV[2], in the order in which the script unpacks them.
fn figures(script: &str, value: impl Fn(&str) -> f64) -> Vec<u8> {
    let end = script.find("= struct.unpack('<").expect("the script unpacks its figures");
    let start = script[..end].rfind("\nlocal ").expect("into locals") + "\nlocal ".len();
    let code = script[start..end]
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    let names = code.flat_map(|line| line.split(',')).map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .flat_map(|name| value(name).to_le_bytes())
        .collect()
}

fn admit_figure(name: &str, limits: &Limits, is_uncertain: bool) -> f64 {
    match name {
        "most" => limits.in_flight.into(),
        "lease_us" => micros(LEASE),
        "longest_us" => micros(LONGEST_WAIT),
        "retention" => micros(RETENTION),
        "uncertain" => f64::from(u8::from(is_uncertain)),
        "typical" => 300e3,
        "reserved" | "committed" | "share_burst" | "shadow" => 0.0,
        _ => figure(name, limits),
    }
}

fn settle_figure(name: &str, limits: &Limits, verdict: Verdict) -> f64 {
    match name {
        "expires" if verdict == Verdict::Done => NOW + micros(RESULT),
        "expires" => -1.0,
        _ => figure(name, limits),
    }
}

fn figure(name: &str, limits: &Limits) -> f64 {
    match name {
        "clock" => NOW,
        "rate" => limits.rate,
        "burst" => limits.burst.into(),
        "throttled" => -1.0,
        "tenant_rate" => Limits::TENANT_RATE,
        "tenant_burst" => limits.tenant_burst.into(),
        _ => panic!("the explorer does not know the script's figure {name}"),
    }
}

/// 32 hexadecimal digits, as the gateway writes nonces.
pub fn nonce(who: Who) -> String {
    format!("{:032x}", u32::from(who) + 1)
}

pub fn sealed_by(who: Who) -> String {
    format!("sealed-by-{who}")
}

pub fn print_of(content: Content) -> String {
    format!("print-of-{content}")
}

pub fn token_of(content: Content) -> String {
    format!("token-of-{content}")
}

pub fn mac_of(content: Content) -> String {
    format!("mac-of-{content}")
}

pub fn micros(ms: i32) -> f64 {
    f64::from(ms) * 1e3
}

/// Redis TIME and the upstream's clock, in every state: the states are relative to it.
pub const NOW: f64 = 1_763_700_000_000_000.0;

pub const TENANT: &str = "acme";
pub const VERSION: &str = "1";

const COMMON: &str = include_str!("../../src/admission/redis/common.lua");
const ADMIT: &str = include_str!("../../src/admission/redis/admit.lua");
const SETTLE: &str = include_str!("../../src/admission/redis/settle.lua");
