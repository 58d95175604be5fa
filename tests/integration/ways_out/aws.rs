//! AWS's services as stand-ins behind TLS, under their own names.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::response::IntoResponse;
use participant_gateway::simulator::{self, Journal, Options, Simulator};
use rcgen::CertificateParams;
use tokio::net::TcpListener;

use super::authority::Authority;
use crate::support::tls::tls_before;

/// Connect by TLS, for all of its names.
pub struct Aws {
    pub connect: SocketAddr,
    pub journal: Journal,
    pub credentials: Credentials,
    /// The file of the CA that signed for both.
    pub ca: tempfile::NamedTempFile,
}

/// STS, SSO's portal and a container's credentials in one: they differ in their answers' form.
#[derive(Clone)]
pub struct Credentials {
    pub open: SocketAddr,
    pub by_tls: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Aws {
    pub async fn start() -> Self {
        let authority = Authority::new();
        let names = [
            "*.us-east-1.amazonaws.com",
            "*.eu-central-1.amazonaws.com",
            "*.sso.us-east-1.amazonaws.com",
        ];
        let names = names.map(str::to_owned).to_vec();
        let pair = authority.sign(&CertificateParams::new(names).unwrap());
        let options = Options::default();
        let simulator = Simulator::bind(([127, 0, 0, 1], 0).into(), options).await.unwrap();
        let (open, journal) = (simulator.endpoint_url(), simulator.journal());
        tokio::spawn(simulator.run(std::future::pending()));
        let open = open.strip_prefix("http://").unwrap().parse().unwrap();
        let connect = tls_before(open, &pair).await;
        let (open, asked) = credentials().await;
        let by_tls = tls_before(open, &pair).await;
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), &authority.pem).unwrap();
        Self { connect, journal, credentials: Credentials { open, by_tls, asked }, ca }
    }

    pub fn ca(&self) -> &str {
        self.ca.path().to_str().unwrap()
    }
}

impl Credentials {
    /// What was asked: the request's path and query, or its form.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn credentials() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let all = Arc::clone(&asked);
    let answer = async move |uri: http::Uri, form: String| {
        let text = if form.is_empty() { uri.to_string() } else { form };
        all.lock().unwrap().push(text.clone());
        let (id, secret) = (simulator::ACCESS_KEY_ID, simulator::SECRET_ACCESS_KEY);
        let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        match text {
            text if text.contains("Action=AssumeRole") => {
                let action = if text.contains("WebIdentity") {
                    "AssumeRoleWithWebIdentity"
                } else {
                    "AssumeRole"
                };
                let answer = format!(
                    "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
                     <AssumedRoleUser><AssumedRoleId>A:s</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/s</Arn>\
                     </AssumedRoleUser><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}\
                     </SecretAccessKey><SessionToken>session</SessionToken><Expiration>{ends:.0}</Expiration>\
                     </Credentials></{action}Result></{action}Response>"
                );
                ([("content-type", "text/xml")], answer).into_response()
            }
            text if text.starts_with("/federation/credentials") => axum::Json(serde_json::json!({
                "roleCredentials": {
                    "accessKeyId": id, "secretAccessKey": secret, "sessionToken": "session",
                    "expiration": ends.as_millisecond(),
                },
            }))
            .into_response(),
            _ => axum::Json(serde_json::json!({
                "AccessKeyId": id, "SecretAccessKey": secret, "Token": "session",
                "Expiration": format!("{ends:.0}"),
            }))
            .into_response(),
        }
    };
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (addr, asked)
}
