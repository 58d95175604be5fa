//! `levels`: the present content of the store.

use std::fmt::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use participant_gateway::admission::TenantLevels;
use participant_gateway::app::{LevelTable, Operator};
use participant_gateway::domain::{Enforcement, Tenant};
use serde_json::{Value, json};

use super::table::{Amount, Time};
use super::{Failure, print, store_settings};

/// Print what the store holds now.
#[derive(Debug, Args)]
pub struct LevelsOf {
    /// The config, YAML
    #[arg(long = "config", value_name = "FILE")]
    file: PathBuf,
    /// This tenant alone; absent: all
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
    /// This upstream alone; absent: all
    #[arg(long, value_name = "U")]
    upstream: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl LevelsOf {
    /// Asks the store once for each upstream, and prints the answer.
    pub async fn run(self) -> Result<(), Failure> {
        let operator = Operator::new(store_settings(&self.file)?).await?;
        let all = operator.levels(self.tenant.as_deref(), self.upstream.as_deref()).await?;
        if self.json {
            let upstreams: Vec<_> = all.iter().map(as_json).collect();
            return print(format_args!("{:#}", json!({ "upstreams": upstreams })));
        }
        let tables: Result<Vec<_>, fmt::Error> = all.iter().map(as_table).collect();
        print(tables.map_err(std::io::Error::other)?.join("\n\n"))
    }
}

fn as_json(LevelTable { upstream, tenants, levels }: &LevelTable) -> Value {
    let tenant = |(tenant, of): (&Arc<Tenant>, &TenantLevels)| {
        let Tenant { name, limits, .. } = &**tenant;
        let TenantLevels { level, share, in_flight, queue } = of;
        json!({
            "tenant": name.as_str(),
            "rate_per_second": limits.rate.per_second(),
            "burst": limits.burst,
            "level": level,
            "committed_per_second": limits.committed.per_second(),
            "committed_burst": limits.committed_burst(),
            "share": share,
            "in_flight": in_flight,
            "in_flight_limit": limits.max_in_flight,
            "queue": queue,
            "enforcement": match limits.enforcement {
                Enforcement::Enforce => "enforce",
                Enforcement::Shadow => "shadow",
            },
        })
    };
    let tenants: Vec<_> = tenants.iter().zip(&levels.tenants).map(tenant).collect();
    json!({
        "upstream": upstream.name.as_str(),
        "time": Time(levels.now).to_string(),
        "rate_per_second": upstream.rate.per_second(),
        "burst": upstream.burst,
        "level": levels.level,
        "factor": levels.factor,
        "queue": levels.queue,
        "tenants": tenants,
    })
}

fn as_table(LevelTable { upstream, tenants, levels }: &LevelTable) -> Result<String, fmt::Error> {
    let mut table = format!("upstream {} at {}\n", upstream.name, Time(levels.now));
    let (level, burst) = (Amount(levels.level), Amount(upstream.burst.into()));
    let (rate, factor) = (Amount(upstream.rate.per_second()), Amount(levels.factor));
    let queue = levels.queue;
    writeln!(table, "budget {level} of {burst}, rate {rate}/s, factor {factor}, queue {queue}")?;
    let width = tenants.iter().map(|tenant| tenant.name.as_str().len()).max().unwrap_or(0);
    let width = width.clamp("TENANT".len(), LONGEST_NAME);
    write!(
        table,
        "\n{:width$}  {:>7}  {:>14}  {:>14}  {:>14}  {:>5}",
        "TENANT", "RATE", "LEVEL", "SHARE", "IN FLIGHT", "QUEUE"
    )?;
    for (tenant, of) in tenants.iter().zip(&levels.tenants) {
        let limits = &tenant.limits;
        let name = tenant.name.as_str();
        // A longer name gets a line of its own.
        let name = if name.len() > width { format!("{name}\n{:width$}", "") } else { name.into() };
        let rate = format!("{}/s", Amount(limits.rate.per_second()));
        let pair = |now: f64, most: u32| format!("{} of {}", Amount(now), Amount(most.into()));
        let share = match limits.committed_burst() {
            0 => "-".to_owned(),
            most => pair(of.share, most),
        };
        write!(
            table,
            "\n{name:width$}  {rate:>7}  {:>14}  {share:>14}  {:>14}  {:>5}",
            pair(of.level, limits.burst),
            pair(of.in_flight.into(), limits.max_in_flight),
            Amount(of.queue.into()),
        )?;
    }
    Ok(table)
}

/// The longest name in a line with figures: the line then fits 100 columns.
const LONGEST_NAME: usize = 36;
