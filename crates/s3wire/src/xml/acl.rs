//! `AccessControlPolicy`: the one list that there is, in which the owner may do everything.

use super::read::read_as;
use super::write::{OWNER_ID, Writer};
use crate::Error;

/// The largest access control list that is read.
pub const ACL_BODY_BYTES_MAX: usize = 64 << 10;

const FULL_CONTROL: &str = "FULL_CONTROL";

/// The list that `x-amz-acl: private` means.
pub fn print_private_acl() -> String {
    let mut writer = Writer::new("AccessControlPolicy");
    writer.owner("Owner");
    writer.open("AccessControlList");
    writer.open("Grant");
    writer.grantee();
    writer.element("Permission", FULL_CONTROL);
    writer.close("Grant");
    writer.close("AccessControlList");
    writer.finish()
}

/// Reads a client's list, which may only say what holds anyway.
///
/// # Errors
/// NotImplemented where it grants something to somebody else: ignoring that would be worse, whether
/// the client means to open or to close something.
pub fn check_private_acl(body: &[u8]) -> Result<(), Error> {
    let node = read_as(body, "AccessControlPolicy", ACL_BODY_BYTES_MAX)?;
    let list = node.must("AccessControlList")?;
    for grant in list.children("Grant") {
        let grantee = grant.must("Grantee")?;
        let to_owner = grantee.filled("ID") == Some(OWNER_ID);
        if !to_owner || grant.required("Permission")? != FULL_CONTROL {
            return Err(Error::not_implemented(
                "An access control list that is not private",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn only_the_list_that_holds_anyway_is_taken() {
        let ours = print_private_acl();
        assert_eq!(check_private_acl(ours.as_bytes()), Ok(()));
        for other in [("FULL_CONTROL", "READ"), (OWNER_ID, "somebody")] {
            let open = ours.replace(other.0, other.1);
            let refused = check_private_acl(open.as_bytes()).unwrap_err();
            assert_eq!(refused.code, ErrorCode::NotImplemented, "{open}");
        }
        let empty = "<AccessControlPolicy/>";
        let refused = check_private_acl(empty.as_bytes()).unwrap_err();
        assert_eq!(refused.code, ErrorCode::MalformedXml);
    }
}
