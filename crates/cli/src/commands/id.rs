//! `bowline id`: who this device is.

use std::path::PathBuf;

use bowline_key::KeyFile;
use data_encoding::HEXLOWER;
use serde::Serialize;

use crate::{
    config::Config,
    host,
    output::{Output, STRONG, paint},
};

/// Show this device's ID, its IPv6 form and public key; the key is made at first use
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bowline id
  bowline id --key /etc/bowline/key --json | jq -r .id")]
pub(crate) struct Args {
    /// The key file [default: `key` in the configuration file, or bowline/key in the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    id: String,
    ipv6: String,
    public_key: String,
    key_file: String,
    created: bool,
}

pub(crate) async fn run(args: Args, config: &Config) -> anyhow::Result<()> {
    let file = KeyFile::open_or_create(host::device_key_path(args.key.as_ref(), config)?)?;
    let public = file.key().public();
    let shown = Shown {
        id: public.device_id().to_string(),
        ipv6: public.device_id().to_ipv6().to_string(),
        public_key: HEXLOWER.encode(&public.0),
        key_file: file.path().display().to_string(),
        created: file.was_created(),
    };
    let mut output = Output::new();
    if args.json {
        return output.json(&shown).await;
    }
    let made = if shown.created { " (made just now)" } else { "" };
    output.line(&format!("device ID   {}", paint(STRONG, shown.id))).await?;
    output.line(&format!("IPv6 form   {}", shown.ipv6)).await?;
    output.line(&format!("public key  {}", shown.public_key)).await?;
    output.line(&format!("key file    {}{made}", shown.key_file)).await
}
