"""The only way to addresses that tenants choose: rules, and the HTTP transport that heeds them."""
