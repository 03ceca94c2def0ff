// Test, by az without azd: as dev, with the network of prod, so that what is private there is tried here.
// Sizes are in stages.json.

using 'main.bicep'

var stages = loadJsonContent('stages.json')
var own = stages.test

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', 'test')
param location = readEnvironmentVariable('AZURE_LOCATION', '')
param stage = 'test'

param databricksHost = readEnvironmentVariable('DATABRICKS_HOST', '')
param databricksJobs = readEnvironmentVariable('UDS_DATABRICKS_JOBS', '')
param catalog = own.catalog
param auditSchema = readEnvironmentVariable('UDS_SCHEMA', 'data_sync')
param volume = readEnvironmentVariable('UDS_VOLUME', 'runs')
param databricksPrincipalId = readEnvironmentVariable('UDS_DATABRICKS_PRINCIPAL_ID', '')

param secretScope = readEnvironmentVariable('UDS_SECRET_SCOPE', 'data-sync')
param furtherVaults = readEnvironmentVariable('UDS_FURTHER_VAULTS', '')
param webhookSecret = readEnvironmentVariable('UDS_WEBHOOK_SECRET', '')
param secretsOfficerPrincipalId = readEnvironmentVariable('UDS_SECRETS_OFFICER_ID', '')
param deployerPrincipalId = readEnvironmentVariable('UDS_DEPLOYER_ID', '')
param authClientId = readEnvironmentVariable('UDS_AUTH_CLIENT_ID', '')

param serviceBusTier = own.serviceBusTier
param instanceMemoryInMegabytes = own.instanceMemoryInMegabytes
param maximumInstanceCount = own.maximumInstanceCount
param alwaysReady = own.alwaysReady
param zoneRedundant = own.zoneRedundant
param logRetentionInDays = own.logRetentionInDays
param logQuotaInGigabytes = own.logQuotaInGigabytes
param softDeleteDays = own.softDeleteDays

param privateNetworking = own.privateNetworking
param publicHttp = own.publicHttp
param createPrivateDnsZones = bool(readEnvironmentVariable('UDS_CREATE_DNS_ZONES', 'true'))

param alertEmails = json(readEnvironmentVariable('UDS_ALERT_EMAILS', '[]'))
param release = readEnvironmentVariable('UDS_RELEASE', '')
param lineageUrl = readEnvironmentVariable('UDS_LINEAGE_URL', '')
param lineageSecret = readEnvironmentVariable('UDS_LINEAGE_SECRET', '')
