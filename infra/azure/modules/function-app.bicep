// The function app on Flex Consumption: it scales to zero, joins the private network, and signs in everywhere as one identity.

@description('Name of the app, unique in the world.')
@minLength(2)
@maxLength(60)
param name string

@description('Name of its plan.')
param planName string

@description('Azure region.')
param location string

@description('Tags of every resource.')
param tags object

@description('Resource id of the control plane\'s identity.')
param identityId string

@description('Client id of the control plane\'s identity.')
param identityClientId string

@description('Name of the storage account.')
param storageAccountName string

@description('Address of the container that holds the deployment package.')
param deploymentContainerUrl string

@description('Name of the Application Insights component.')
param componentName string

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

@description('Resource id of the subnet that the app sends from; empty for none.')
param subnetId string

@description('Disabled when the app is called through its private endpoint alone. Deployment takes the same way in.')
@allowed(['Enabled', 'Disabled'])
param publicNetworkAccess string

@description('Whether the plan is spread over availability zones; not every region has them.')
param zoneRedundant bool

@description('Memory of an instance in megabytes.')
@allowed([512, 2048, 4096])
param instanceMemoryInMegabytes int

@description('Most instances at once, of all functions together.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int

@description('Instances that always run, as [{name, instanceCount}]; a name is http, or function: and the name of a function.')
param alwaysReady array

@description('Client id of the Entra application that HTTP callers sign in to; empty leaves function keys as the only lock.')
param authClientId string

@description('The product\'s own app settings: name to value.')
param settings object

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: storageAccountName
}

resource component 'Microsoft.Insights/components@2020-02-02' existing = {
  name: componentName
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  // checkov:skip=CKV_AZURE_225:zoneRedundant is a parameter; it is on in main.prod.bicepparam.
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  // checkov:skip=CKV_AZURE_222:publicNetworkAccess is a parameter; who comes by the internet signs in with Entra.
  // checkov:skip=CKV_AZURE_17:Callers sign in with Entra tokens; client certificates would lock the Databricks webhook out.
  // checkov:skip=CKV_AZURE_212:Flex Consumption scales from zero by itself; alwaysReady is a parameter.
  // checkov:skip=CKV_AZURE_213:Flex Consumption has no health check; the alarm no-tick takes its place.
  name: name
  location: location
  // azd finds the app by this tag.
  tags: union(tags, { 'azd-service-name': 'control' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: publicNetworkAccess
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      http20Enabled: true
      remoteDebuggingEnabled: false
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: deploymentContainerUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.13'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryInMegabytes
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: alwaysReady
      }
    }
  }
}

// Flex Consumption takes the runtime from functionAppConfig: FUNCTIONS_WORKER_RUNTIME, FUNCTIONS_EXTENSION_VERSION and WEBSITE_* stay unset.
resource appSettings 'Microsoft.Web/sites/config@2025-03-01' = {
  // checkov:skip=CKV_AZURE_13:Sign-in is set in http-sign-in.bicep; these are the app settings.
  // checkov:skip=CKV_AZURE_63:Flex Consumption has no web server logs of its own; requests are in Application Insights.
  // checkov:skip=CKV_AZURE_65:Flex Consumption has no web server logs of its own; requests are in Application Insights.
  // checkov:skip=CKV_AZURE_66:Flex Consumption has no web server logs of its own; requests are in Application Insights.
  // checkov:skip=CKV_AZURE_80:The app runs Python, no .NET Framework.
  // checkov:skip=CKV_AZURE_88:Flex Consumption takes its package from a blob and mounts no file share.
  // checkov:skip=CKV_AZURE_222:The rule is about the site and is answered there; this is one of its settings.
  parent: app
  name: 'appsettings'
  properties: union(settings, empty(authClientId) ? {} : {
    OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID: identityClientId
  }, {
    AzureWebJobsStorage__accountName: account.name
    AzureWebJobsStorage__credential: 'managedidentity'
    AzureWebJobsStorage__clientId: identityClientId
    ServiceBusConnection__credential: 'managedidentity'
    ServiceBusConnection__clientId: identityClientId
    APPLICATIONINSIGHTS_CONNECTION_STRING: component.properties.ConnectionString
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
    AZURE_CLIENT_ID: identityClientId
    UDS_HTTP_AUTH: empty(authClientId) ? 'keys' : 'entra'
  })
}

resource ftpPublishing 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
}

resource scmPublishing 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: app
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        // What the host says before and beside Application Insights: a start that failed is only here.
        category: 'FunctionAppLogs'
        enabled: true
      }
      {
        // Who was let in and who was turned away.
        category: 'AppServiceAuthenticationLogs'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

output id string = app.id
output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
