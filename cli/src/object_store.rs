//! Converts the configuration to the settings of an object store.

use std::env;
use std::path::PathBuf;

use engine::restore::target_time;
use engine::storage::ReadAhead;
use engine::storage::azure::{self, AzureCredentials, AzureSettings};
use engine::storage::gcs::{GcsCredentials, GcsSettings};
use engine::storage::http::HttpSettings;
use engine::storage::object::UriStyle;
use engine::storage::s3::{S3Credentials, S3Settings};
use engine::tls::ciphers;
use engine::{Error, ErrorCode, Result, time_zone};

use crate::config::handle::OptIndexed;
use crate::config::{Config, Source, opt};

/// Returns the settings of an S3 repository.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`] if the environment lacks what the key type requires.
pub fn s3(config: &Config, key: u32) -> Result<S3Settings> {
    Ok(S3Settings {
        repo_path: config.get_at(opt::REPO_PATH, key)?.to_owned(),
        bucket: config.get_at(opt::REPO_S3_BUCKET, key)?.to_owned(),
        endpoint: config.get_at(opt::REPO_S3_ENDPOINT, key)?.to_owned(),
        port: port(config, key)?,
        region: config.get_at(opt::REPO_S3_REGION, key)?.to_owned(),
        service: config.get_at(opt::REPO_S3_SERVICE, key)?.to_owned(),
        credentials: s3_credentials(config, key)?,
        uri_style: uri_style(config, opt::REPO_S3_URI_STYLE, key)?,
        kms_key_id: config.find_at(opt::REPO_S3_KMS_KEY_ID, key).map(str::to_owned),
        sse_customer_key: config.find_at(opt::REPO_S3_SSE_CUSTOMER_KEY, key).map(Into::into),
        requester_pays: config.get_at(opt::REPO_S3_REQUESTER_PAYS, key)?,
        tags: tags(config, key),
        part_size_bytes: part_size_bytes(config, key)?,
        target_time: target_time(config)?,
        http: http(config, key)?,
        read_ahead: read_ahead(config, key)?,
    })
}

fn s3_credentials(config: &Config, key: u32) -> Result<S3Credentials> {
    let key_type = config.get_at(opt::REPO_S3_KEY_TYPE, key)?;
    // Reads two variables that the provider of the credentials sets in the environment
    let from_environment = |first: &str, second: &str| match (env::var(first), env::var(second)) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        _ => Err(Error::new(
            ErrorCode::OptionInvalid,
            format!("option 'repo{key}-s3-key-type' is '{key_type}' but '{first}' and '{second}' are not set"),
        )),
    };
    match key_type {
        "shared" => Ok(S3Credentials::Shared {
            key: config.get_at(opt::REPO_S3_KEY, key)?.into(),
            secret: config.get_at(opt::REPO_S3_KEY_SECRET, key)?.into(),
            token: config.find_at(opt::REPO_S3_TOKEN, key).map(Into::into),
        }),
        "auto" => {
            Ok(S3Credentials::InstanceMetadata { role: config.find_at(opt::REPO_S3_ROLE, key).map(str::to_owned) })
        }
        "web-id" => {
            let (role, token_file) = from_environment("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")?;
            let sts_host = config.get_at(opt::REPO_S3_STS_HOST, key)?.to_owned();
            Ok(S3Credentials::WebIdentity { role, token_file, sts_host })
        }
        "pod-id" => {
            let (url, token_file) =
                from_environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?;
            Ok(S3Credentials::PodIdentity { url, token_file })
        }
        _ => Ok(S3Credentials::Process { command: config.get_at(opt::REPO_S3_PROCESS_CMD, key)?.to_vec() }),
    }
}

/// Returns the settings of an Azure repository.
///
/// # Errors
/// [`ErrorCode::OptionRequired`] if the key type requires a key.
pub fn azure(config: &Config, key: u32) -> Result<AzureSettings> {
    let secret = || {
        config.find_at(opt::REPO_AZURE_KEY, key).ok_or_else(|| {
            let command = config.command().decl().name;
            Error::new(ErrorCode::OptionRequired, format!("{command} command requires option: repo{key}-azure-key"))
        })
    };
    Ok(AzureSettings {
        repo_path: config.get_at(opt::REPO_PATH, key)?.to_owned(),
        account: config.get_at(opt::REPO_AZURE_ACCOUNT, key)?.to_owned(),
        container: config.get_at(opt::REPO_AZURE_CONTAINER, key)?.to_owned(),
        endpoint: config.get_at(opt::REPO_AZURE_ENDPOINT, key)?.to_owned(),
        port: port(config, key)?,
        uri_style: azure_uri_style(config, key)?,
        credentials: match config.get_at(opt::REPO_AZURE_KEY_TYPE, key)? {
            "shared" => azure_shared_key(secret()?, key)?,
            "sas" => AzureCredentials::Sas(secret()?.into()),
            _ => AzureCredentials::ManagedIdentity { metadata_url: None },
        },
        tags: tags(config, key),
        part_size_bytes: part_size_bytes(config, key)?,
        target_time: target_time(config)?,
        http: http(config, key)?,
        read_ahead: read_ahead(config, key)?,
    })
}

fn azure_shared_key(text: &str, key: u32) -> Result<AzureCredentials> {
    match azure::key_fault(text) {
        None => Ok(AzureCredentials::Shared(text.into())),
        Some(fault) => Err(Error::new(
            ErrorCode::OptionInvalidValue,
            format!("invalid value for 'repo{key}-azure-key' option: {fault}"),
        )
        .hint(format!("value must be valid base64 when 'repo{key}-azure-key-type = shared'."))),
    }
}

/// If no style is configured, another host means an emulator, which has the account in the path.
fn azure_uri_style(config: &Config, key: u32) -> Result<UriStyle> {
    let is_default = config.source_at(opt::REPO_AZURE_URI_STYLE, key) == Source::Default;
    if is_default && config.find_at(opt::REPO_STORAGE_HOST, key).is_some() {
        return Ok(UriStyle::Path);
    }
    uri_style(config, opt::REPO_AZURE_URI_STYLE, key)
}

/// Returns the settings of a GCS repository.
///
/// # Errors
/// [`ErrorCode::Assert`] if the command does not know the options.
pub fn gcs(config: &Config, key: u32) -> Result<GcsSettings> {
    Ok(GcsSettings {
        repo_path: config.get_at(opt::REPO_PATH, key)?.to_owned(),
        bucket: config.get_at(opt::REPO_GCS_BUCKET, key)?.to_owned(),
        endpoint: config.get_at(opt::REPO_GCS_ENDPOINT, key)?.to_owned(),
        credentials: match config.get_at(opt::REPO_GCS_KEY_TYPE, key)? {
            "service" => GcsCredentials::Service { file: config.get_at(opt::REPO_GCS_KEY, key)?.to_owned() },
            "web-id" => GcsCredentials::External { file: config.get_at(opt::REPO_GCS_KEY, key)?.to_owned() },
            "token" => GcsCredentials::Token(config.get_at(opt::REPO_GCS_KEY, key)?.into()),
            _ => GcsCredentials::Auto { metadata_url: None },
        },
        user_project: config.find_at(opt::REPO_GCS_USER_PROJECT, key).map(str::to_owned),
        tags: tags(config, key),
        part_size_bytes: part_size_bytes(config, key)?,
        target_time: target_time(config)?,
        http: http(config, key)?,
        read_ahead: read_ahead(config, key)?,
    })
}

/// Returns `repo-target-time`, in seconds since the epoch.
///
/// # Errors
/// [`ErrorCode::Format`] if it is not a valid time.
pub fn target_time(config: &Config) -> Result<Option<i64>> {
    config.find(opt::REPO_TARGET_TIME).map(|time| target_time::parse(time, time_zone::local())).transpose()
}

fn uri_style(config: &Config, option: OptIndexed<String>, key: u32) -> Result<UriStyle> {
    Ok(if config.get_at(option, key)? == "path" { UriStyle::Path } else { UriStyle::Host })
}

/// Returns the port if it is configured. An endpoint or host may contain another port, which the default must not
/// override.
fn port(config: &Config, key: u32) -> Result<Option<u16>> {
    if config.source_at(opt::REPO_STORAGE_PORT, key) == Source::Default {
        return Ok(None);
    }
    let port = config.get_at(opt::REPO_STORAGE_PORT, key)?;
    u16::try_from(port).map(Some).map_err(|error| {
        Error::new(ErrorCode::OptionInvalidValue, format!("'{port}' is not valid for 'repo{key}-storage-port' option"))
            .cause(error)
    })
}

fn tags(config: &Config, key: u32) -> Vec<(String, String)> {
    let tags = config.find_at(opt::REPO_STORAGE_TAG, key);
    tags.map(|tags| tags.iter().map(|(k, v)| (k.clone(), v.clone())).collect()).unwrap_or_default()
}

fn part_size_bytes(config: &Config, key: u32) -> Result<usize> {
    Ok(usize::try_from(config.get_at(opt::REPO_STORAGE_UPLOAD_CHUNK_SIZE, key)?).unwrap_or(usize::MAX))
}

fn read_ahead(config: &Config, key: u32) -> Result<ReadAhead> {
    let mut read_ahead = ReadAhead::NEAR;
    if let Some(prefetch) = config.find_at(opt::REPO_STORAGE_PREFETCH, key) {
        read_ahead.prefetch = usize::try_from(prefetch).map_err(|error| {
            let text = format!("'{prefetch}' is not valid for 'repo{key}-storage-prefetch' option");
            Error::new(ErrorCode::OptionInvalidValue, text).cause(error)
        })?;
    }
    if let Some(read_over_bytes) = config.find_at(opt::REPO_STORAGE_READ_OVER, key) {
        read_ahead.read_over_bytes = read_over_bytes;
    }
    Ok(read_ahead)
}

fn http(config: &Config, key: u32) -> Result<HttpSettings> {
    ciphers::choose(config.find(opt::TLS_CIPHER_12), config.find(opt::TLS_CIPHER_13))?;
    Ok(HttpSettings {
        host: config.find_at(opt::REPO_STORAGE_HOST, key).map(str::to_owned),
        verify_tls: config.get_at(opt::REPO_STORAGE_VERIFY_TLS, key)?,
        ca_file: config.find_at(opt::REPO_STORAGE_CA_FILE, key).map(PathBuf::from),
        ca_path: config.find_at(opt::REPO_STORAGE_CA_PATH, key).map(PathBuf::from),
        io_timeout: config.get(opt::IO_TIMEOUT)?,
    })
}
