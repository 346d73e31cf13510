//! client URL: as python_clients.py, with tungstenite.

use std::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::{client_tls_with_config, Connector, Error, Message};

fn main() {
    let url = std::env::args().nth(1).expect("a URL");
    let mut request = url.as_str().into_client_request().expect("a good URL");
    let token = std::env::var("HELIOSD_TOKEN").expect("a token");
    request.headers_mut().insert("Authorization", format!("Bearer {token}").parse().unwrap());
    let uri = request.uri();
    let stream = TcpStream::connect((uri.host().unwrap(), uri.port_u16().unwrap())).expect("a connection");
    let tls = native_tls::TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .build()
        .unwrap();
    let (mut socket, _) =
        client_tls_with_config(request, stream, None, Some(Connector::NativeTls(tls))).expect("an upgrade");
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => println!("{text}"),
            Ok(Message::Close(Some(frame))) => println!("closed {}", u16::from(frame.code)),
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return,
            Err(error) => {
                println!("failed {error}");
                return;
            }
        }
    }
}
