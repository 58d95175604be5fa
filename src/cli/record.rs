//! `record`: the state of a call, and how to free its `client_token`.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use participant_gateway::admission::Forgotten;
use participant_gateway::app::{CallRecord, Fate, Operator};
use participant_gateway::domain::ClientToken;
use serde_json::json;

use super::table::{Away, Time};
use super::{Failure, print, store_settings};

/// Print the state of a call.
#[derive(Debug, Args)]
pub struct RecordOf {
    /// The config, YAML
    #[arg(long = "config", value_name = "FILE")]
    file: PathBuf,
    /// The call's tenant
    #[arg(long, value_name = "T")]
    tenant: String,
    /// The upstream that owns the call's instance
    #[arg(long, value_name = "U")]
    upstream: String,
    /// The call's `client_token`, byte for byte
    #[arg(long, value_name = "TOKEN")]
    client_token: String,
    /// Delete the record, so that the token may be used anew; never one in flight
    #[arg(long)]
    forget: bool,
    /// With --forget: do not ask
    #[arg(long, requires = "forget")]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl RecordOf {
    /// Asks the store, and a person if needed, and prints the answer.
    pub async fn run(self) -> Result<(), Failure> {
        if self.forget && !self.yes && !io::stdin().is_terminal() {
            let text = "--forget asks on a terminal, and there is none: expected --yes";
            return Err(Failure::Usage(text.to_owned()));
        }
        // clap's own check would print the token.
        let token = ClientToken::new(self.client_token.as_str())
            .map_err(|problem| Failure::Usage(format!("--client-token {problem}")))?;
        let operator = Operator::new(store_settings(&self.file)?).await?;
        let Self { tenant, upstream, .. } = &self;
        let record = operator.record(tenant, upstream, &token).await?;
        if !self.forget {
            return self.show(&record, false);
        }
        if let Fate::InFlight { .. } = record.fate {
            return Err(self.is_in_flight(&record));
        }
        if !self.yes && record.fate != Fate::Absent {
            eprintln!("{}", self.as_table(&record));
            if !confirmed().await? {
                return Err(Failure::Own(io::Error::other("nothing is forgotten")));
            }
        }
        match operator.forget(upstream, &record, !self.yes).await? {
            Forgotten::Gone => {
                let (record_name, state) = (record.name.as_str(), record.fate.as_str());
                tracing::info!(tenant, upstream, record = record_name, state, "record forgotten");
                self.show(&record, true)
            }
            Forgotten::Absent => self.show(&record, false),
            Forgotten::InFlight => Err(self.is_in_flight(&record)),
            Forgotten::Changed => {
                let text = "the record has changed since it was shown; nothing is forgotten";
                Err(Failure::Own(io::Error::other(text)))
            }
        }
    }

    fn is_in_flight(&self, record: &CallRecord) -> Failure {
        let until = match &record.fate {
            Fate::InFlight { until } => format!(" until {}", Time(*until)),
            _ => String::new(),
        };
        let text = format!("the call is in flight{until}; its record is not forgotten");
        Failure::Own(io::Error::other(text))
    }

    fn show(&self, record: &CallRecord, forgotten: bool) -> Result<(), Failure> {
        if self.json {
            return print(format_args!("{:#}", self.as_json(record, forgotten)));
        }
        let table = self.as_table(record);
        print(if forgotten { format!("{table}\nforgotten       yes") } else { table })
    }

    fn as_json(&self, record: &CallRecord, forgotten: bool) -> serde_json::Value {
        let mut json = json!({
            "tenant": self.tenant,
            "upstream": self.upstream,
            "record": record.name,
            "time": Time(record.now).to_string(),
            "state": record.fate.as_str(),
            "forgotten": forgotten,
        });
        let mut set = |key: &str, value: String| json[key] = value.into();
        match &record.fate {
            Fate::Absent | Fate::Uncertain { why: None } | Fate::Expired => {}
            Fate::InFlight { until } => set("lease_until", Time(*until).to_string()),
            Fate::Done { created, participant_id, until } => {
                set("create_time", Time(*created).to_string());
                set("participant_id", participant_id.clone());
                set("replays_until", Time(*until).to_string());
            }
            Fate::Uncertain { why: Some(why) } => set("why", (*why).to_owned()),
        }
        if let Some(ends) = record.ends {
            set("remembered_until", Time(ends).to_string());
        }
        json
    }

    fn as_table(&self, record: &CallRecord) -> String {
        let at = |at| format!("{} ({})", Time(at), Away { at, from: record.now });
        let mut rows = vec![
            ("tenant", self.tenant.clone()),
            ("upstream", self.upstream.clone()),
            ("record", record.name.clone()),
            ("state", record.fate.as_str().replace('_', " ")),
        ];
        match &record.fate {
            Fate::Absent | Fate::Uncertain { why: None } | Fate::Expired => {}
            Fate::InFlight { until } => rows.push(("until", at(*until))),
            Fate::Done { created, participant_id, until } => {
                rows.push(("created", at(*created)));
                rows.push(("participant", participant_id.clone()));
                rows.push(("replays until", at(*until)));
            }
            Fate::Uncertain { why: Some(why) } => rows.push(("why", (*why).to_owned())),
        }
        if let Some(ends) = record.ends {
            rows.push(("remembered", format!("until {}", at(ends))));
        }
        rows.push(("a repeat", repeated(&record.fate).to_owned()));
        rows.into_iter().fold(String::new(), |mut table, (name, value)| {
            let gap = if table.is_empty() { "" } else { "\n" };
            let _ = write!(table, "{gap}{name:14}  {value}");
            table
        })
    }
}

/// The result of a repeat with the same content. A line of the table has 100 columns.
const fn repeated(fate: &Fate) -> &'static str {
    match fate {
        Fate::Absent => "runs as a new call",
        Fate::InFlight { .. } => "waits for the answer",
        Fate::Done { .. } => "gets this participant",
        Fate::Uncertain { .. } => "takes the call over at once, with its ClientToken for Connect",
        Fate::Expired => "is answered RESULT_EXPIRED",
    }
}

/// Asks a person. It uses standard error, because a program may read standard output.
async fn confirmed() -> Result<bool, Failure> {
    eprint!("Forget this record? A call with its token then runs anew. [y/N] ");
    // The runtime's own threads must not wait for a person.
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = read.await.map_err(io::Error::other)??;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
