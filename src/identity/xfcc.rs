//! Envoy's `x-forwarded-client-cert` (Envoy's documentation, "HTTP header manipulation"). Each
//! proxy adds one element, and commas separate the elements. An element has `Key=value` pairs, and
//! semicolons separate the pairs. The last element is from the proxy next to the gateway. The
//! others are what that proxy received.
//!
//! The whole value must keep to the grammar. Otherwise a caller could send an open quote. The
//! element of its proxy would then become part of the quoted text.

use std::borrow::Cow;

/// The client that the last element names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ForwardedClient<'a> {
    /// Its URI names, in their order.
    pub uris: Vec<Cow<'a, str>>,
    /// Its DNS names, in their order.
    pub dns: Vec<Cow<'a, str>>,
}

/// The value breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl<'a> ForwardedClient<'a> {
    /// The client of the last element. Keys match in any case, and other keys are passed over. An
    /// empty name counts as absent: Envoy writes `URI=` for a certificate without one.
    ///
    /// # Errors
    /// If any element breaks the grammar.
    pub fn parse(value: &'a str) -> Result<Self, Malformed> {
        let mut rest = value;
        let mut client = Self::default();
        loop {
            let (key, after) = rest.split_once('=').ok_or(Malformed)?;
            let key = key.trim_start_matches(BLANKS);
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err(Malformed);
            }
            let (name, after) = name(after)?;
            if !name.is_empty() {
                if key.eq_ignore_ascii_case("uri") {
                    client.uris.push(name);
                } else if key.eq_ignore_ascii_case("dns") {
                    client.dns.push(name);
                }
            }
            let after = after.trim_start_matches(BLANKS);
            rest = match after.as_bytes().first() {
                None => return Ok(client),
                Some(b';') => &after[1..],
                Some(b',') => {
                    client = Self::default();
                    &after[1..]
                }
                Some(_) => return Err(Malformed),
            };
        }
    }
}

/// A value, and the rest of the text.
fn name(text: &str) -> Result<(Cow<'_, str>, &str), Malformed> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', '=', '"', ' ', '\t']).unwrap_or(text.len());
        return Ok((Cow::Borrowed(&text[..end]), &text[end..]));
    };
    let mut name = Cow::Borrowed("");
    let mut rest = quoted;
    loop {
        let end = rest.find(['"', '\\']).ok_or(Malformed)?;
        name += &rest[..end];
        if rest[end..].starts_with('"') {
            return Ok((name, &rest[end + 1..]));
        }
        // Envoy escapes a quote. A certificate's subject has its own escapes (RFC 4514), which
        // stay: both characters of any other pair are kept.
        let escaped = rest[end + 1..].chars().next().ok_or(Malformed)?;
        let length = 1 + escaped.len_utf8();
        let kept = usize::from(matches!(escaped, '"' | '\\'));
        name += &rest[end + kept..end + length];
        rest = &rest[end + length..];
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(value: &str) -> Result<(Vec<String>, Vec<String>), Malformed> {
        let owned = |names: Vec<Cow<'_, str>>| names.into_iter().map(Cow::into_owned).collect();
        ForwardedClient::parse(value).map(|client| (owned(client.uris), owned(client.dns)))
    }

    fn uris(list: &[&str]) -> Result<(Vec<String>, Vec<String>), Malformed> {
        Ok((list.iter().map(ToString::to_string).collect(), Vec::new()))
    }

    fn dns(list: &[&str]) -> Result<(Vec<String>, Vec<String>), Malformed> {
        Ok((Vec::new(), list.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn the_last_element_names_the_client() {
        for (value, expected) in [
            (ENVOY, uris(&["spiffe://corp/ns/chat/sa/bot"])),
            (ISTIO, uris(&["spiffe://cluster.local/ns/chat/sa/bot"])),
            ("By=a;URI=spiffe://first,By=b;URI=spiffe://second", uris(&["spiffe://second"])),
            ("By=a;URI=spiffe://first, By=b;DNS=second.corp", dns(&["second.corp"])),
            ("URI=spiffe://first,Hash=ab", uris(&[])),
            ("uri=a;Uri=b;URI=c", uris(&["a", "b", "c"])),
            ("DNS=a.corp;DNS=b.corp", dns(&["a.corp", "b.corp"])),
            ("Hash=ab;Subject=\"\";URI=", uris(&[])),
            ("URI=", uris(&[])),
        ] {
            assert_eq!(names(value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_quoted_separates_nothing() {
        for (value, expected) in [
            (r#"Subject="CN=a,URI=spiffe://no;DNS=no";URI=yes"#, uris(&["yes"])),
            (r#"Subject="O=\"a\",URI=no";URI=yes"#, uris(&["yes"])),
            (r#"Subject="CN=a\\";URI=yes"#, uris(&["yes"])),
            (r#"Subject="CN=a\, b\2C";URI=yes"#, uris(&["yes"])),
            (r#"URI="a,b;c=d\"e""#, uris(&[r#"a,b;c=d"e"#])),
            (r#"URI="a\\b\cä\ö""#, uris(&[r"a\b\cä\ö"])),
            (r#"Cert="-----BEGIN%20CERTIFICATE-----%0A";DNS=a.corp"#, dns(&["a.corp"])),
        ] {
            assert_eq!(names(value), expected, "{value}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_refused_wherever_it_stands() {
        for value in [
            "",
            " ",
            "spiffe://corp/bot",
            "=a",
            "URI",
            "URI=a;",
            "URI=a,",
            ",URI=a",
            ";URI=a",
            "URI=a,,URI=b",
            "URI=a;;URI=b",
            "URI=a=b",
            "URI=a\"b",
            "U RI=a",
            "URI=a b",
            "Ü=a",
            r#"URI=""#,
            r#"URI="a"#,
            r#"URI="a\"#,
            r#"URI="a\""#,
            r#"URI="a"b"#,
            r#"URI="a"="b""#,
            // A caller's open quote, for what its proxy adds.
            r#"Subject="x,By=b;Hash=ab;URI=spiffe://corp/own"#,
            r#"Subject="x,By=b;Subject="CN=own";URI=spiffe://corp/own"#,
        ] {
            assert_eq!(names(value), Err(Malformed), "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(value in ".{0,200}") {
            let _ = ForwardedClient::parse(&value);
        }

        #[test]
        fn no_text_of_a_caller_changes_what_its_proxy_adds(caller in r#"[a-zURIDNS=;,"\\ ]{0,60}"#) {
            let own = "By=b;Hash=ab;Subject=\"CN=own\";URI=spiffe://corp/own";
            if let Ok((uris, dns)) = names(&format!("{caller},{own}")) {
                prop_assert_eq!((uris, dns), (vec!["spiffe://corp/own".to_owned()], Vec::new()));
            }
        }

        #[test]
        fn a_quoted_name_is_read_as_it_was_written(name in r#"[ -~]{1,40}"#) {
            let written = name.replace('\\', r"\\").replace('"', "\\\"");
            prop_assert_eq!(names(&format!("By=b;URI=\"{written}\"")), uris(&[&name]));
        }
    }

    const ENVOY: &str = "By=spiffe://corp/ns/gw/sa/gateway;\
        Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;\
        Subject=\"CN=bot,OU=chat,O=corp\";URI=spiffe://corp/ns/chat/sa/bot;DNS=";
    const ISTIO: &str = "By=spiffe://cluster.local/ns/gw/sa/default;\
        Hash=ba6c4b52d0fcef0fba0ee4da5d7bb0a2d5b4cfd3d0c9f7a2c2c6a3f8e1d2b3c4;\
        Subject=\"\";URI=spiffe://cluster.local/ns/chat/sa/bot";
}
