// What azd deploys: it puts its environment (azd env set NAME VALUE) into the variables below. Sizes are in stages.json. The stage is
// UDS_STAGE, or else the name of azd's environment, and must be dev, test or prod.

using 'main.bicep'

var chosen = readEnvironmentVariable('UDS_STAGE', readEnvironmentVariable('AZURE_ENV_NAME', 'dev'))
var stages = loadJsonContent('stages.json')
var own = stages[chosen]
var azdEnvironment = readEnvironmentVariable('AZURE_ENV_NAME', '')
var group = readEnvironmentVariable('UDS_RESOURCE_GROUP', '')

param environmentName = azdEnvironment
param location = readEnvironmentVariable('AZURE_LOCATION', '')
param stage = chosen
param resourceGroupName = empty(group) ? 'rg-${azdEnvironment}' : group

param databricksHost = readEnvironmentVariable('DATABRICKS_HOST', '')
param createDatabricksWorkspace = bool(readEnvironmentVariable('UDS_CREATE_DATABRICKS', 'false'))
param databricksJobs = readEnvironmentVariable('UDS_DATABRICKS_JOBS', '')
param catalog = own.catalog
param auditSchema = readEnvironmentVariable('UDS_SCHEMA', 'data_sync')
param volume = readEnvironmentVariable('UDS_VOLUME', 'runs')
param databricksPrincipalId = readEnvironmentVariable('UDS_DATABRICKS_PRINCIPAL_ID', '')

param secretScope = readEnvironmentVariable('UDS_SECRET_SCOPE', 'data-sync')
param furtherVaults = readEnvironmentVariable('UDS_FURTHER_VAULTS', '')
param webhookSecret = readEnvironmentVariable('UDS_WEBHOOK_SECRET', '')
param secretsOfficerPrincipalId = readEnvironmentVariable('UDS_SECRETS_OFFICER_ID', readEnvironmentVariable('AZURE_PRINCIPAL_ID', ''))
param secretsOfficerPrincipalType = readEnvironmentVariable('UDS_SECRETS_OFFICER_TYPE', readEnvironmentVariable('AZURE_PRINCIPAL_TYPE', 'User'))
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
