//! Serves a sandbox on the given port, or on a free one, and prints its address.

use std::io::{self, Write as _};
use std::net::TcpListener;

use strongroom_dev::sandbox::{Sandbox, Settings, server};

#[actix_web::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    writeln!(io::stdout(), "http://{}", listener.local_addr()?)?;
    server(&Sandbox::new(Settings::default()), listener)?.await
}
