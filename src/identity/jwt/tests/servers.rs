//! Fetching over real TLS: private CAs, bearer tokens, and discovery that leads nowhere else.

use super::authority::Authority;
use super::discovery::DiscoveryError;
use super::server::{Seen, Server};
use super::*;
use crate::config::Discovery;

/// A server, its CA, and the files of a gateway that trusts it.
struct World {
    folder: TempDir,
    authority: Authority,
    server: Server,
}

impl World {
    async fn new() -> Self {
        let (folder, authority) = (TempDir::new().unwrap(), Authority::new());
        fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
        fs::write(folder.path().join("token"), "first\n").unwrap();
        let server = Server::with(authority.server(4000)).await;
        Self { folder, authority, server }
    }

    fn access(&self) -> Access {
        Access {
            ca_file: Some(self.folder.path().join("ca.crt")),
            token_file: Some(self.folder.path().join("token")),
        }
    }

    fn at(&self, path: &str) -> Fetcher {
        let uri = format!("{}{path}", self.server.url()).parse().unwrap();
        Fetcher::new(&KeySource::Url(uri, self.access()), &Arc::default()).unwrap()
    }

    fn discovering(&self, issuer: &str) -> Fetcher {
        let discovery = Discovery::of(issuer).unwrap();
        Fetcher::new(&KeySource::Discovery(discovery, self.access()), &Arc::default()).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }
}

fn seen(path: &str, token: Option<&str>) -> Seen {
    let authorization = token.map(|token| format!("Bearer {token}"));
    Seen { path: path.to_owned(), authorization }
}

#[tokio::test]
async fn a_private_ca_is_trusted_for_this_key_set_and_changes_with_its_file() {
    let world = World::new().await;
    world.server.serves("/keys", "set");
    let fetcher = world.at("/keys");
    assert_eq!(fetcher.fetch().await.unwrap(), "set");

    let untrusting =
        KeySource::Url(format!("{}/keys", world.server.url()).parse().unwrap(), Access::default());
    let refused = Fetcher::new(&untrusting, &Arc::default()).unwrap().fetch().await;
    assert!(matches!(&refused, Err(FetchError::Unreachable(why)) if why.contains("UnknownIssuer")));

    let other = Authority::new();
    world.server.shows(other.server(4000));
    assert!(matches!(fetcher.fetch().await, Err(FetchError::Unreachable(_))));
    world.write("ca.crt", &format!("{}{}", world.authority.pem, other.pem));
    assert_eq!(fetcher.fetch().await.unwrap(), "set");

    for broken in
        ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        world.write("ca.crt", broken);
        let refused = fetcher.fetch().await;
        assert!(matches!(refused, Err(FetchError::Authority(_))), "{broken}: {refused:?}");
    }
    fs::remove_file(world.folder.path().join("ca.crt")).unwrap();
    assert!(matches!(fetcher.fetch().await, Err(FetchError::Authority(_))));
}

#[tokio::test]
async fn the_token_is_read_at_each_fetch_and_never_told() {
    let world = World::new().await;
    world.server.serves("/keys", "set");
    world.server.wants("first");
    let fetcher = world.at("/keys");
    assert_eq!(fetcher.fetch().await.unwrap(), "set");
    world.server.wants("second");
    assert!(matches!(fetcher.fetch().await, Err(FetchError::Status(401))));
    world.write("token", "second");
    assert_eq!(fetcher.fetch().await.unwrap(), "set");
    assert_eq!(
        world.server.seen(),
        ["first", "first", "second"].map(|token| seen("/keys", Some(token)))
    );

    for broken in ["", " \n", "canary two", "canary\r\nx-evil: 1", "canary\u{e9}"] {
        world.write("token", broken);
        let refused = fetcher.fetch().await.unwrap_err();
        assert!(matches!(refused, FetchError::Token(_)), "{broken}: {refused:?}");
        assert!(!format!("{refused} {refused:?}").contains("canary"), "{refused:?}");
    }
    assert_eq!(world.server.seen(), [], "something was sent without a good token");
}

#[tokio::test]
async fn discovery_finds_the_key_set_with_the_ca_and_the_token_of_its_origin() {
    let world = World::new().await;
    let issuer = world.server.url();
    world.server.wants("first");
    world.server.discovers(&issuer, &format!("{issuer}/openid/v1/jwks"));
    world.server.serves("/openid/v1/jwks", "set");
    assert_eq!(world.discovering(&issuer).fetch().await.unwrap(), "set");
    assert_eq!(
        world.server.seen(),
        [DOCUMENT, "/openid/v1/jwks"].map(|path| seen(path, Some("first")))
    );

    // Another port is already another origin: the same CA applies, but no token is sent.
    let elsewhere = Server::with(world.authority.server(4000)).await;
    elsewhere.serves("/jwks", "other set");
    world.server.discovers(&issuer, &format!("{}/jwks", elsewhere.url()));
    assert_eq!(world.discovering(&issuer).fetch().await.unwrap(), "other set");
    assert_eq!(elsewhere.seen(), [seen("/jwks", None)]);
}

#[tokio::test]
async fn discovery_cannot_be_led_elsewhere() {
    let world = World::new().await;
    let issuer = world.server.url();
    let plain = Endpoint::serving("plaintext").await;
    let refused = async || world.discovering(&issuer).fetch().await.unwrap_err();

    world.server.discovers(&issuer, &plain.url());
    let found = refused().await;
    assert!(matches!(found, FetchError::Discovery(DiscoveryError::Plaintext)), "{found:?}");
    world.server.discovers(&format!("{issuer}/"), &format!("{issuer}/keys"));
    let found = refused().await;
    assert!(matches!(found, FetchError::Discovery(DiscoveryError::OtherIssuer(_))), "{found:?}");

    let moved =
        format!("HTTP/1.1 302 Found\r\nlocation: {issuer}/moved\r\ncontent-length: 0\r\n\r\n");
    world.server.discovers(&issuer, &format!("{issuer}/keys"));
    world.server.answers("/keys", moved.clone());
    world.server.serves("/moved", "moved");
    assert!(matches!(refused().await, FetchError::Status(302)));
    world.server.answers(DOCUMENT, moved);
    let found = refused().await;
    assert!(
        matches!(&found, FetchError::Document(why) if matches!(**why, FetchError::Status(302)))
    );
    world
        .server
        .answers(DOCUMENT, format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 << 20)));
    let found = refused().await;
    assert!(matches!(&found, FetchError::Document(why) if matches!(**why, FetchError::TooLarge)));

    assert_eq!(plain.fetches(), 0);
    assert!(world.server.seen().iter().all(|seen| seen.path != "/moved"));
}

#[tokio::test]
async fn a_plain_issuer_is_discovered_as_a_plain_url_is_fetched() {
    let endpoint = Endpoint::serving("").await;
    let issuer = format!("http://{}", endpoint.addr);
    endpoint.serves(
        &serde_json::json!({ "issuer": issuer, "jwks_uri": endpoint.url(), "keys": [] })
            .to_string(),
    );
    let discovery = Discovery::of(&issuer).unwrap();
    let source = KeySource::Discovery(discovery, Access::default());
    assert!(
        Fetcher::new(&source, &Arc::default())
            .unwrap()
            .fetch()
            .await
            .unwrap()
            .ends_with(b"}")
    );
    assert_eq!(endpoint.fetches(), 2);
}

const DOCUMENT: &str = "/.well-known/openid-configuration";
