// What azd deploys: it puts its environment (azd env set NAME VALUE) into the variables below. The defaults are those of
// main.dev.bicepparam; docs/azure.md says what to set for test and prod.

using 'main.bicep'

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', '')
param location = readEnvironmentVariable('AZURE_LOCATION', '')
param stage = readEnvironmentVariable('UDS_STAGE', 'dev')
param resourceGroupName = readEnvironmentVariable('UDS_RESOURCE_GROUP', 'rg-${readEnvironmentVariable('AZURE_ENV_NAME', '')}')

param databricksHost = readEnvironmentVariable('UDS_DATABRICKS_HOST', '')
param createDatabricksWorkspace = bool(readEnvironmentVariable('UDS_CREATE_DATABRICKS', 'false'))
param databricksJobs = readEnvironmentVariable('UDS_DATABRICKS_JOBS', '')
param catalog = readEnvironmentVariable('UDS_CATALOG', 'main')
param auditSchema = readEnvironmentVariable('UDS_SCHEMA', 'uds')
param volume = readEnvironmentVariable('UDS_VOLUME', 'runs')
param databricksPrincipalId = readEnvironmentVariable('UDS_DATABRICKS_PRINCIPAL_ID', '')

param secretScope = readEnvironmentVariable('UDS_SECRET_SCOPE', 'uds')
param furtherVaults = readEnvironmentVariable('UDS_FURTHER_VAULTS', '')
param webhookSecret = readEnvironmentVariable('UDS_WEBHOOK_SECRET', '')
param secretsOfficerPrincipalId = readEnvironmentVariable('UDS_SECRETS_OFFICER_ID', readEnvironmentVariable('AZURE_PRINCIPAL_ID', ''))
param secretsOfficerPrincipalType = readEnvironmentVariable('UDS_SECRETS_OFFICER_TYPE', readEnvironmentVariable('AZURE_PRINCIPAL_TYPE', 'User'))
param authClientId = readEnvironmentVariable('UDS_AUTH_CLIENT_ID', '')

param serviceBusTier = readEnvironmentVariable('UDS_SERVICE_BUS_TIER', 'Standard')
param instanceMemoryInMegabytes = int(readEnvironmentVariable('UDS_INSTANCE_MEMORY', '2048'))
param maximumInstanceCount = int(readEnvironmentVariable('UDS_MAXIMUM_INSTANCES', '40'))
param alwaysReady = json(readEnvironmentVariable('UDS_ALWAYS_READY', '[]'))
param zoneRedundant = bool(readEnvironmentVariable('UDS_ZONE_REDUNDANT', 'false'))
param logRetentionInDays = int(readEnvironmentVariable('UDS_LOG_RETENTION_DAYS', '30'))
param logQuotaInGigabytes = int(readEnvironmentVariable('UDS_LOG_QUOTA_GIGABYTES', '1'))
param softDeleteDays = int(readEnvironmentVariable('UDS_SOFT_DELETE_DAYS', '7'))

param privateNetworking = bool(readEnvironmentVariable('UDS_PRIVATE_NETWORKING', 'false'))
param publicHttp = bool(readEnvironmentVariable('UDS_PUBLIC_HTTP', 'true'))
param createPrivateDnsZones = bool(readEnvironmentVariable('UDS_CREATE_DNS_ZONES', 'true'))

param alertEmails = json(readEnvironmentVariable('UDS_ALERT_EMAILS', '[]'))
param release = readEnvironmentVariable('UDS_RELEASE', '')
param lineageUrl = readEnvironmentVariable('UDS_LINEAGE_URL', '')
