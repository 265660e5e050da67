//! Operations on buckets themselves. Those of the configuration are listed and asked about; those that
//! belong to the catalogue are also made and removed here, by the root account.

use base::BucketName;
use engine::catalogue::Bucket;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use s3wire::xml::{
    self, BucketEntry, BucketList, CREATE_BUCKET_BYTES_MAX, VersioningStatus, parse_create_bucket,
};
use s3wire::{Error, ErrorCode, Target, is_bucket_name_of_s3};

use super::super::Front;
use super::super::access::Rights;
use super::super::intake::Intake;
use super::super::render::{Answer, Failure};
use super::{Call, REGION, refuse_unsupported};
use crate::config::is_route;

/// Buckets on a page of ListBuckets where the client asks for no number.
const BUCKETS_PER_PAGE: u32 = 10_000;

impl Front {
    /// ListBuckets: those that the caller's rights show.
    pub(super) async fn list_buckets(
        &self,
        target: &Target,
        rights: &Rights,
    ) -> Result<Answer, Failure> {
        let Target::Service(params) = target else {
            return Err(ErrorCode::InvalidRequest.into());
        };
        let behind = params.continuation_token.as_deref().unwrap_or("");
        let max =
            usize::try_from(params.max_buckets.unwrap_or(BUCKETS_PER_PAGE)).unwrap_or(usize::MAX);
        self.engine.knows_absence()?;
        let all = self.engine.all_buckets().await?;
        // By name, so that a token is the last name of the page before.
        let mut shown = all.iter().filter(|bucket| {
            let name = bucket.name.as_str();
            name > behind && name.starts_with(&params.prefix) && rights.show(&bucket.name)
        });
        let entry = |bucket: &Bucket| BucketEntry {
            name: bucket.name.clone(),
            created: bucket.created,
        };
        let buckets: Vec<_> = shown
            .by_ref()
            .take(max)
            .map(|bucket| entry(bucket))
            .collect();
        let last = buckets.last().map(|bucket| bucket.name.as_str().to_owned());
        let page = BucketList {
            prefix: Some(params.prefix.clone()).filter(|prefix| !prefix.is_empty()),
            continuation_token: last.filter(|_| shown.next().is_some()),
            buckets,
        };
        Ok(Answer::xml(page.to_xml()))
    }

    /// CreateBucket by the root account.
    pub(super) async fn create_bucket(
        &self,
        name: &BucketName,
        headers: &HeaderMap,
        body: Intake,
    ) -> Result<Answer, Failure> {
        // Names that no request could reach belong to the listener itself.
        if !is_bucket_name_of_s3(name) || is_route(name.as_str()) || self.is_page(name) {
            return Err(ErrorCode::InvalidBucketName.into());
        }
        let wanted = Wanted::read(headers, body).await?;
        if let Some(unsupported) = wanted.unsupported {
            return Err(unsupported.into());
        }
        match self.engine.create_bucket(name).await {
            Ok(()) => Ok(created(name)),
            // Another request of the same account was faster.
            Err(engine::Error::BucketExists { in_use: true }) => wanted.made_already(name),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a CreateBucket asks for besides the bucket.
struct Wanted {
    region: Option<String>,
    /// The refusal of what is not built.
    unsupported: Option<Error>,
}

impl Wanted {
    async fn read(headers: &HeaderMap, body: Intake) -> Result<Self, Failure> {
        let (body, _) = body.read_whole(headers, CREATE_BUCKET_BYTES_MAX).await?;
        let asked = parse_create_bucket(&body).map_err(Error::from)?;
        let element = asked.unsupported.map(|element| {
            let message = format!("The element {element} of CreateBucket is not implemented.");
            Error::new(ErrorCode::NotImplemented, message)
        });
        Ok(Self {
            region: asked.region,
            unsupported: refuse_unsupported(headers).err().or(element),
        })
    }

    /// The answer where the caller has the bucket. As in Amazon S3 it is a success in us-east-1, and so
    /// wherever no other region is named. Who asks for something that the bucket cannot have must not
    /// take a success for it.
    fn made_already(&self, name: &BucketName) -> Result<Answer, Failure> {
        let here = self.region.as_deref().is_none_or(|region| region == REGION);
        if here && self.unsupported.is_none() {
            return Ok(created(name));
        }
        Err(ErrorCode::BucketAlreadyOwnedByYou.into())
    }
}

fn created(name: &BucketName) -> Answer {
    let mut headers = HeaderMap::new();
    // Names of the configuration need not be those of S3.
    if let Ok(place) = HeaderValue::try_from(format!("/{name}")) {
        headers.insert(LOCATION, place);
    }
    Answer::empty(headers)
}

impl Call<'_> {
    /// CreateBucket of a bucket that the caller has.
    pub(super) async fn create_again(self) -> Result<Answer, Failure> {
        let wanted = Wanted::read(&self.headers, self.body).await?;
        wanted.made_already(&self.bucket.name)
    }

    pub(super) fn head_bucket() -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", HeaderValue::from_static(REGION));
        Answer::empty(headers)
    }

    pub(super) fn location() -> Answer {
        Answer::xml(xml::print_location(REGION))
    }

    pub(super) fn versioning() -> Answer {
        Answer::xml(xml::print_versioning(VersioningStatus::Off))
    }

    /// The rules of the configuration.
    pub(super) fn get_cors(self) -> Result<Answer, Failure> {
        let rules = self.front.access.load().cors(&self.bucket.name);
        let rules = rules.ok_or(ErrorCode::NoSuchCorsConfiguration)?;
        let shown = rules.iter().map(|rule| xml::CorsRule {
            origins: texts(&rule.allowed_origins),
            methods: rule.allowed_methods.iter().map(Method::as_str).collect(),
            headers: texts(&rule.allowed_headers),
            expose: rule.expose_headers.iter().map(HeaderName::as_str).collect(),
            max_age: rule.max_age,
        });
        Ok(Answer::xml(xml::print_cors(shown)))
    }

    pub(super) async fn delete_bucket(self) -> Result<Answer, Failure> {
        self.front.engine.delete_bucket(&self.bucket).await?;
        Ok(Answer::silent())
    }
}

fn texts(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}
