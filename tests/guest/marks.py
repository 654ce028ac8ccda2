"""What every test that needs the guest is marked with."""

import pytest

# One worker of a parallel run takes them all (tools/test says --dist loadgroup), so that one guest does.
needs_guest = [pytest.mark.guest, pytest.mark.xdist_group("guest"), pytest.mark.timeout(1500)]
