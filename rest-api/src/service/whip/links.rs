//! `Link` headers that name ICE servers (RFC 9725, section 4.6).

use crate::config::IceServer;

/// One value for each URL. What a header cannot carry is left out.
pub fn ice_server_links(servers: &[IceServer]) -> impl Iterator<Item = String> {
    servers.iter().flat_map(|server| server.urls.iter().map(|url| link(server, url)))
}

fn link(server: &IceServer, url: &str) -> String {
    let mut link = format!("<{url}>; rel=\"ice-server\"");
    if let (Some(username), Some(credential)) = (&server.username, &server.credential) {
        let (username, credential) = (quoted(username), quoted(credential));
        link.push_str(&format!(
            "; username={username}; credential={credential}; credential-type=\"password\""
        ));
    }
    link
}

/// RFC 9110, section 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_url_is_a_link_with_its_credentials() {
        let servers = [
            IceServer { urls: vec!["stun:a".into(), "stun:b".into()], username: None, credential: None },
            IceServer {
                urls: vec!["turn:c?transport=tcp".into()],
                username: Some("me".into()),
                credential: Some("a \"quoted\\ one".into()),
            },
        ];
        let links: Vec<_> = ice_server_links(&servers).collect();
        assert_eq!(links[..2], ["<stun:a>; rel=\"ice-server\"", "<stun:b>; rel=\"ice-server\""]);
        let turn = r#"<turn:c?transport=tcp>; rel="ice-server"; username="me"; credential="a \"quoted\\ one"; credential-type="password""#;
        assert_eq!(links[2], turn);
    }
}
